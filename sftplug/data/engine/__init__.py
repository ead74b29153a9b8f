"""Text -> token ids and the characters that each token covers, in flat arrays for a whole batch.

There are two engines. `tokenizers` works for every fast tokenizer. For byte-level BPE the same vocabulary also runs in
`tiktoken`, several times as fast; it is used only after it has given the same ids on a sample of the rows and on
strings chosen to break it. What a token covers is told by the bytes that it spells, checked against the text; only
for rows that their tokens do not spell are the tokenizer's own offsets asked, which are slow.
"""

from sftplug.data.engine.backend import TokenizersEngine
from sftplug.data.engine.choose import Encoders, EngineName
from sftplug.data.engine.encoded import EncodedTexts, IntArray, together

__all__ = ["EncodedTexts", "Encoders", "EngineName", "IntArray", "TokenizersEngine", "together"]
