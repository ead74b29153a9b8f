"""The dataset formats that people have: plain text, prompt and completion, messages, Alpaca, ShareGPT, any table."""

import sftplug
from sftplug_formats.alpaca import Alpaca
from sftplug_formats.columns import Columns
from sftplug_formats.messages import Messages
from sftplug_formats.sharegpt import ShareGPT
from sftplug_formats.text import PromptCompletion, Text


@sftplug.hookimpl
def sftplug_dataset_formats() -> list[type[sftplug.DatasetFormat]]:
    """Offer the built-in formats."""
    return [Text, PromptCompletion, Messages, Alpaca, ShareGPT, Columns]
