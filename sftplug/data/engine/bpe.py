"""Byte-level BPE in tiktoken, built from the same `tokenizer.json`."""

from __future__ import annotations

import itertools
import json
import os
import unicodedata
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sftplug.data.engine.backend import TokenizersEngine
from sftplug.data.engine.encoded import IntArray
from sftplug.data.engine.token_bytes import ALPHABET, spell_byte_level, steps_of

_BETWEEN = "\ue000sftplug\ue000"
"""What parts texts that are encoded together; a text that holds it is encoded alone."""
_GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

ADVERSARIAL: tuple[str, ...] = tuple(json.loads((Path(__file__).parent / "adversarial.json").read_text()))
"""Strings on which two engines of one vocabulary might differ."""


@dataclass(frozen=True, slots=True)
class TiktokenEngine:
    """A byte-level BPE vocabulary, run by tiktoken."""

    encoding: Any
    """A `tiktoken.Encoding`, whose ids are ranks."""
    id_of: IntArray
    """Rank -> id; -1 for what parts texts."""
    controls: frozenset[str]
    nfc: bool
    """Whether the tokenizer composes characters first, which tiktoken does not."""
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(os.cpu_count()))

    def ids(self, texts: Sequence[str]) -> list[IntArray]:
        """Return the ids of each text, encoded on all cores."""
        size = -(-len(texts) // (os.cpu_count() or 1)) or 1
        chunks = [texts[at : at + size] for at in range(0, len(texts), size)]
        return [ids for chunk in self.pool.map(self._chunk, chunks) for ids in chunk]

    def spells(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """Return (T,) whether a text is composed as it stands: tiktoken cuts the very bytes that it gets."""
        return np.array([not self.nfc or unicodedata.is_normalized("NFC", text) for text in texts], dtype=bool)

    def _chunk(self, texts: Sequence[str]) -> list[IntArray]:
        """Encode texts in one call, which needs Python's lock but once; a control token of our own parts them."""
        texts = [self._composed(text) for text in texts]
        if any(_BETWEEN in text for text in texts):
            return [self._encode(text, self.controls) for text in texts]
        # ["Hi", "there"] is encoded as "Hi" + _BETWEEN + "there"; what parts them has the id -1, and is cut out again.
        ids = self._encode(_BETWEEN.join(texts), self.controls | {_BETWEEN})
        first, *others = np.split(ids, np.flatnonzero(ids < 0))
        return [first, *(part[1:] for part in others)]

    def _composed(self, text: str) -> str:
        return unicodedata.normalize("NFC", text) if self.nfc and not text.isascii() else text

    def _encode(self, text: str, controls: frozenset[str]) -> IntArray:
        ranks = self.encoding.encode_to_numpy(text, allowed_special=controls, disallowed_special=())
        ids: IntArray = self.id_of[ranks]
        return ids


def tiktoken_engine(state: Mapping[str, Any]) -> TiktokenEngine | None:
    """Return a vocabulary as tiktoken runs it; None for a tokenizer that is not plain byte-level BPE.

    `state` is what ``tokenizer.json`` holds.
    """
    import tiktoken

    pattern, controls = _pattern(state), _controls(state)
    ranks = _ranks(state["model"]) if pattern is not None and controls is not None else None
    if ranks is None or pattern is None or controls is None:
        return None
    vocabulary = state["model"]["vocab"]
    marks = {**controls, _BETWEEN: -1}
    ids = [vocabulary[token] for token in ranks] + list(marks.values())
    numbers = {text: len(ranks) + index for index, text in enumerate(marks)}
    spelled = {written: rank for rank, written in enumerate(spell_byte_level(ranks)) if written is not None}
    if len(spelled) < len(ranks):
        return None  # tokens of another alphabet
    encoding = tiktoken.Encoding("sftplug", pat_str=pattern, mergeable_ranks=spelled, special_tokens=numbers)
    nfc = state["normalizer"] is not None
    return TiktokenEngine(encoding, np.array(ids, dtype=np.int32), frozenset(controls), nfc)


def _pattern(state: Mapping[str, Any]) -> str | None:
    """Return the pattern that splits text into words, if that is all that is done before the merges."""
    normalizer, steps = state["normalizer"], steps_of(state["pre_tokenizer"], "pretokenizers")
    if normalizer is not None and normalizer["type"] != "NFC":
        return None
    if not steps or steps[-1]["type"] != "ByteLevel" or steps[-1]["add_prefix_space"]:
        return None
    if len(steps) == 1:
        return _GPT2 if steps[0].get("use_regex", True) else None
    split = steps[0]
    whole = split["type"] == "Split" and split["behavior"] == "Isolated" and not split["invert"]
    if len(steps) != 2 or not whole or steps[1].get("use_regex", True):
        return None
    pattern: str | None = split["pattern"].get("Regex")
    return pattern


def _controls(state: Mapping[str, Any]) -> dict[str, int] | None:
    """Return text -> id of the added tokens; None if they are found by more than their text."""
    added = state["added_tokens"]
    if any(token[flag] for token in added for flag in ("single_word", "lstrip", "rstrip")):
        return None
    texts = sorted(token["content"] for token in added)
    # In order, a text stands right before those that begin with it: to look at neighbours is enough.
    if any(longer.startswith(text) for text, longer in itertools.pairwise(texts)) or any(
        "\ue000" in text for text in texts
    ):
        return None  # which of the two is found depends on the engine
    return {token["content"]: token["id"] for token in added}


def _ranks(model: Mapping[str, Any]) -> list[str] | None:
    """Return the tokens in the order in which they are merged; None for a vocabulary with tokens made otherwise."""
    plain = model["type"] == "BPE" and not model.get("dropout") and not model.get("byte_fallback")
    if not plain or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        return None
    # "h e" and "he l" make "he" and "hel", ranks 256 and 257 after the single bytes: the lowest is merged first.
    merged = ("".join(pair.split(" ") if isinstance(pair, str) else pair) for pair in model["merges"])
    ranks = list(dict.fromkeys([*ALPHABET, *merged]))
    known = all(token in model["vocab"] for token in ranks)
    return ranks if known else None


def agrees(fast: TiktokenEngine, texts: Sequence[str], ids: Sequence[IntArray]) -> bool:
    """Whether the engine gives these `ids` for `texts`."""
    return all(map(np.array_equal, fast.ids(texts), ids))


def agrees_on_vocabulary(fast: TiktokenEngine, slow: TokenizersEngine) -> bool:
    """Whether two engines give the same ids for the text of every token: each may have its own way to one."""
    tokens = [slow.backend.decode([index], skip_special_tokens=False) for index in fast.id_of.tolist() if index >= 0]
    return agrees(fast, tokens, slow.ids(tokens))
