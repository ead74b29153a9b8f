"""Which bytes a token spells: from them follows which characters of a text it covers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sftplug.data.engine.encoded import EncodedTexts, IntArray


@dataclass(frozen=True, slots=True)
class Spelling:
    """The bytes of every token, in one flat table."""

    table: NDArray[np.uint8]
    first: NDArray[np.int64]
    """(V,) where a token's bytes start in the table."""
    length: NDArray[np.int64]
    """(V,) how many bytes a token has."""

    def locate(
        self, ids: Sequence[IntArray], texts: Sequence[str], known: NDArray[np.bool_] | None
    ) -> tuple[EncodedTexts, NDArray[np.bool_]]:
        """Return where each token stands, and (T,) whether a text is spelled by its tokens to the byte.

        Where any is not, no place is told. `known` is what the engine itself knows of that, if it does.
        """
        flat = np.concatenate(ids) if ids else np.zeros(0, np.int32)
        counts = np.array([len(item) for item in ids], dtype=np.int64)
        written = [text.encode() for text in texts]
        sizes = np.array([len(item) for item in written], dtype=np.int64)
        lengths = self.length[flat]
        ends = np.cumsum(lengths)
        token_bounds = np.concatenate([[0], np.cumsum(counts)])
        # Two texts of 3 and 2 tokens have the token bounds 0, 3, 5. The byte bounds say where each text would begin and
        # end if its tokens spelled it: two texts are spelled only if that is as long as they are.
        byte_bounds = np.concatenate([[0], ends])[token_bounds]
        spelled = np.diff(byte_bounds) == sizes
        spelled = spelled if known is None else spelled & known
        # Only now do the bytes of tokens and texts lie side by side, so that the n-th of one is compared with the n-th
        # of the other.
        if spelled.all():
            buffer = np.frombuffer(b"".join(written), dtype=np.uint8)
            spelled = spelled if known is not None else self._same_bytes(flat, lengths, ends, buffer, byte_bounds)
            start, end = _characters(ends - lengths, ends, buffer, sum(map(len, texts)))
            shift = np.concatenate([[0], np.cumsum([len(text) for text in texts])])[:-1]
            shift = np.repeat(shift, counts)
            return EncodedTexts(flat, counts, (start - shift).astype(np.int32), (end - shift).astype(np.int32)), spelled
        nowhere = np.zeros(len(flat), np.int32)
        return EncodedTexts(flat, counts, nowhere, nowhere), spelled

    def _same_bytes(
        self,
        ids: IntArray,
        lengths: NDArray[np.int64],
        ends: NDArray[np.int64],
        buffer: NDArray[np.uint8],
        byte_bounds: NDArray[np.int64],
    ) -> NDArray[np.bool_]:
        """Return (T,) whether the tokens of each text have its very bytes."""
        # A token stands at 40 in the table and at 7 in the texts: byte 9 of the texts is to be byte 40 - 7 + 9 of the
        # table.
        source = np.repeat(self.first[ids] - (ends - lengths), lengths)
        source += np.arange(len(buffer), dtype=np.int64)
        wrong = np.flatnonzero(self.table[source] != buffer)
        spelled = np.ones(len(byte_bounds) - 1, dtype=bool)
        spelled[np.searchsorted(byte_bounds, wrong, side="right") - 1] = False
        return spelled


def _characters(
    start: NDArray[np.int64], end: NDArray[np.int64], buffer: NDArray[np.uint8], characters: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Turn byte offsets into character offsets; a token of some bytes of a character covers all of it."""
    if characters == len(buffer):
        return start, end
    # "é" is two bytes: a token of the first alone and one of the second both cover character 0, from 0 to 1.
    # Every byte but a continuation byte (10xxxxxx) begins a character.
    index = np.cumsum((buffer & 0xC0) != 0x80, dtype=np.int32)
    return index[np.minimum(start, len(buffer) - 1)] - 1, index[np.maximum(end - 1, 0)]


def spelling_of(state: Mapping[str, Any]) -> Spelling | None:
    """Return the bytes of every token of a byte-level or byte-fallback tokenizer; None for others.

    `state` is what ``tokenizer.json`` holds.
    """
    if not isinstance(state["model"].get("vocab"), dict):
        return None
    vocabulary: Mapping[str, int] = state["model"]["vocab"]
    spell = spell_byte_level if _is_byte_level(state) else _spell_byte_fallback
    added = {token["id"]: token["content"].encode() for token in state["added_tokens"]}
    spelled = {**dict(zip(vocabulary.values(), spell(list(vocabulary)), strict=True)), **added}
    # Some vocabularies leave out ids: those have no bytes, and no text has them.
    tokens = [spelled.get(index) or b"" for index in range(max(spelled, default=0) + 1)]
    length = np.fromiter(map(len, tokens), np.int64, len(tokens))
    first = np.concatenate([[0], np.cumsum(length)[:-1]]) if len(length) else length
    return Spelling(np.frombuffer(b"".join(tokens), dtype=np.uint8), first, length)


def _is_byte_level(state: Mapping[str, Any]) -> bool:
    return any(step["type"] == "ByteLevel" for step in steps_of(state["pre_tokenizer"], "pretokenizers"))


def widest(state: Mapping[str, Any], spelling: Spelling | None) -> int | None:
    """Return how many bytes other than white space a token stands for at most; None where that is not known.

    It is known where every byte is a token, so that none stands for what the vocabulary lacks, and where nothing but
    composition (NFC) changes the text before. Added tokens may take in white space around them.
    """
    steps = steps_of(state["normalizer"], "normalizers")
    if spelling is None or not _is_byte_level(state) or any(step["type"] != "NFC" for step in steps):
        return None
    complete = state["model"]["type"] == "BPE" and ALPHABET.keys() <= state["model"]["vocab"].keys()
    return int(spelling.length.max()) if complete else None


def steps_of(stage: Mapping[str, Any] | None, members: str) -> Sequence[Mapping[str, Any]]:
    """Return the steps of a stage of a tokenizer: those in its list `members`, or the one it is."""
    if stage is None:
        return []
    return list(stage[members]) if stage["type"] == "Sequence" else [stage]


def _byte_alphabet() -> dict[str, int]:
    """Return the character that byte-level BPE writes for each byte (Radford et al. 2019)."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + index): byte for index, byte in enumerate(hidden)}


ALPHABET = _byte_alphabet()


_BYTES = np.full(max(map(ord, ALPHABET)) + 2, -1, dtype=np.int16)
"""Code point -> the byte that it is written for; -1 for none, as the last one is."""
_BYTES[list(map(ord, ALPHABET))] = list(ALPHABET.values())


def spell_byte_level(tokens: Sequence[str]) -> list[bytes | None]:
    """Return the bytes that each token of byte-level BPE is written for; None for one that no text can have."""
    # Four bytes for each character, so that one look-up serves the whole vocabulary.
    codes = np.frombuffer("".join(tokens).encode("utf-32-le"), dtype=np.uint32)
    spelled = _BYTES[np.minimum(codes, len(_BYTES) - 1)]
    bounds = np.concatenate([[0], np.cumsum(np.fromiter(map(len, tokens), np.int64, len(tokens)))])
    wrong = set((np.searchsorted(bounds, np.flatnonzero(spelled < 0), side="right") - 1).tolist())
    written, places = spelled.astype(np.uint8).tobytes(), itertools.pairwise(bounds.tolist())
    return [None if index in wrong else written[low:high] for index, (low, high) in enumerate(places)]


def _spell_byte_fallback(tokens: Sequence[str]) -> list[bytes | None]:
    return [_byte_fallback(token) for token in tokens]


def _byte_fallback(token: str) -> bytes:
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return bytes([int(token[3:5], 16)])
    return token.replace("▁", " ").encode()
