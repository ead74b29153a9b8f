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

from sftplug.data.engine.backend import TokenizersEngine
from sftplug.data.engine.encoded import IntArray
from sftplug.data.engine.spelling import ALPHABET, steps_of

_CHUNK = 64
"""Texts that one thread takes at a time."""
_GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

ADVERSARIAL: tuple[str, ...] = tuple(json.loads((Path(__file__).parent / "adversarial.json").read_text()))
"""Strings on which two engines of one vocabulary might differ."""


@dataclass(frozen=True, slots=True)
class TiktokenEngine:
    """A byte-level BPE vocabulary, run by tiktoken."""

    encoding: Any
    """A `tiktoken.Encoding`, whose ids are ranks."""
    id_of: IntArray
    """Rank -> id."""
    controls: frozenset[str]
    nfc: bool
    """Whether the tokenizer composes characters first, which tiktoken does not."""
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(os.cpu_count()))

    def ids(self, texts: Sequence[str]) -> list[IntArray]:
        """Return the ids of each text, encoded on all cores."""
        chunks = [texts[at : at + _CHUNK] for at in range(0, len(texts), _CHUNK)]
        return [ids for chunk in self.pool.map(self._chunk, chunks) for ids in chunk]

    def _chunk(self, texts: Sequence[str]) -> list[IntArray]:
        return [self._one(text) for text in texts]

    def _one(self, text: str) -> IntArray:
        if self.nfc and not text.isascii():
            text = unicodedata.normalize("NFC", text)
        ranks = self.encoding.encode_to_numpy(text, allowed_special=self.controls, disallowed_special=())
        ids: IntArray = self.id_of[ranks]
        return ids


def tiktoken_engine(backend: Any) -> TiktokenEngine | None:
    """Return the vocabulary of `backend` as tiktoken runs it; None for a tokenizer that is not plain byte-level BPE."""
    import tiktoken

    state = json.loads(backend.to_str())
    pattern, controls = _pattern(state), _controls(state)
    ranks = _ranks(state["model"]) if pattern is not None and controls is not None else None
    if ranks is None or pattern is None or controls is None:
        return None
    vocabulary = state["model"]["vocab"]
    ids = [vocabulary[token] for token in ranks] + [controls[text] for text in controls]
    numbers = {text: len(ranks) + index for index, text in enumerate(controls)}
    spelled = {bytes(ALPHABET[character] for character in token): rank for rank, token in enumerate(ranks)}
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
    if any(longer.startswith(text) for text, longer in itertools.pairwise(texts)):
        return None  # which of the two is found depends on the engine
    return {token["content"]: token["id"] for token in added}


def _ranks(model: Mapping[str, Any]) -> list[str] | None:
    """Return the tokens in the order in which they are merged; None for a vocabulary with tokens made otherwise."""
    plain = model["type"] == "BPE" and not model.get("dropout") and not model.get("byte_fallback")
    if not plain or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        return None
    merged = ("".join(pair.split(" ") if isinstance(pair, str) else pair) for pair in model["merges"])
    ranks = list(dict.fromkeys([*ALPHABET, *merged]))
    known = all(token in model["vocab"] for token in ranks)
    return ranks if known else None


def agrees(fast: TiktokenEngine, slow: TokenizersEngine, texts: Sequence[str]) -> bool:
    """Whether two engines give the same ids for `texts` and for the adversarial strings."""
    sample = [*ADVERSARIAL, *texts]
    return all(map(np.array_equal, fast.ids(sample), slow.ids(sample)))


def agrees_on_vocabulary(fast: TiktokenEngine, slow: TokenizersEngine) -> bool:
    """Whether two engines give the same ids for the text of every token: each may have its own way to one."""
    tokens = [slow.backend.decode([index], skip_special_tokens=False) for index in fast.id_of.tolist()]
    return all(map(np.array_equal, fast.ids(tokens), slow.ids(tokens)))
