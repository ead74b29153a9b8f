"""The dataset formats that people have: text, conversations, transcripts, any table, tokens."""

import sftplug
from sftplug_formats.alpaca import Alpaca
from sftplug_formats.alternating import Alternating
from sftplug_formats.columns import Columns
from sftplug_formats.messages import Messages
from sftplug_formats.segments import Segments
from sftplug_formats.sharegpt import ShareGPT
from sftplug_formats.text import PromptCompletion, Text
from sftplug_formats.tokenized import Tokenized
from sftplug_formats.transcript import Transcript


@sftplug.hookimpl
def sftplug_dataset_formats() -> list[type[sftplug.DatasetFormat]]:
    """Offer the built-in formats."""
    return [Text, PromptCompletion, Messages, Alpaca, ShareGPT, Alternating, Transcript, Columns, Segments, Tokenized]
