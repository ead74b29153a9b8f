"""The engine in use: the fast one where it is proven, and the tokenizer's own offsets where nothing else will do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np

from sftplug.data.engine.backend import Engine, TokenizersEngine
from sftplug.data.engine.bpe import ADVERSARIAL, TiktokenEngine, agrees, agrees_on_vocabulary, tiktoken_engine
from sftplug.data.engine.encoded import EncodedTexts, IntArray, together
from sftplug.data.engine.token_bytes import Spelling, spelling_of, widest
from sftplug.errors import ModelError

EngineName = Literal["auto", "tokenizers", "tiktoken"]

WORTH_IT = 1000
"""So many rows are worth the proof that `tiktoken` needs."""
SAMPLE = 100
"""So many of them must agree, besides the adversarial strings and every token of the vocabulary."""


@dataclass
class Encoders:
    """The engine in use, chosen when enough rows are seen."""

    slow: TokenizersEngine
    wanted: EngineName = "auto"
    proofs: Path | None = None
    """Folder that remembers for which vocabularies the engines agree."""
    engine: Engine = None  # type: ignore[assignment]
    spelling: Spelling | None = None
    chosen: bool = False
    _choosing: Lock = field(default_factory=Lock)
    _seen: int = 0
    _written: str = ""
    _state: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Start with the engine that works for every tokenizer."""
        self.engine = self.slow
        self._written = self.slow.backend.to_str()
        self._state = json.loads(self._written)
        self.spelling = spelling_of(self._state)

    @cached_property
    def widest(self) -> int | None:
        """How many bytes of text other than white space one token stands for at most; None where nobody knows."""
        return widest(self._state, self.spelling)

    @property
    def name(self) -> str:
        """The engine in use, for the record."""
        return "tokenizers" if self.engine is self.slow else "tiktoken"

    def ids(self, texts: Sequence[str]) -> list[IntArray]:
        """Return the ids of each text, no special tokens added: the template has them in its text.

        Raises ModelError when tiktoken is demanded and does not give the tokenizer's ids.
        """
        with self._choosing:  # batches are encoded in several threads
            self._seen += len(texts)
            if not self.chosen and (self.wanted == "tiktoken" or self._seen >= WORTH_IT):
                self._choose(texts)
        # Without a spelling, `located` asks for ids and offsets together.
        return self.engine.ids(texts) if self.spelling is not None else []

    def located(self, ids: Sequence[IntArray], texts: Sequence[str]) -> EncodedTexts:
        """Return the tokens of `texts`, whose ids are known, with the characters that each covers."""
        spelling = self.spelling  # another thread may find that it is of no use
        return self.slow.with_offsets(texts) if spelling is None else self._located(spelling, ids, texts)

    def encode(self, texts: Sequence[str]) -> EncodedTexts:
        """Return the tokens of `texts`."""
        return self.located(self.ids(texts), texts)

    def _located(self, spelling: Spelling, ids: Sequence[IntArray], texts: Sequence[str]) -> EncodedTexts:
        encoded, spelled = spelling.locate(ids, texts, self.engine.spells(texts))
        if spelled.all():
            return encoded
        # A text that NFKC changes ("ﬁ", one character, is "fi" to the tokenizer) has its offsets asked for.
        told = {index: self.slow.with_offsets([texts[index]]) for index in np.flatnonzero(~spelled).tolist()}
        right = np.flatnonzero(spelled).tolist()
        rest = self._located(spelling, [ids[index] for index in right], [texts[index] for index in right])
        others = iter(rest.rows())
        return together([told[index] if index in told else next(others) for index in range(len(texts))])

    def _choose(self, texts: Sequence[str]) -> None:
        self.chosen = True
        sample = texts[:SAMPLE]
        ids = self.slow.ids(sample)
        # Where tokens do not spell most texts, asking the offsets at once is quicker.
        if self.spelling is not None and self.spelling.locate(ids, sample, None)[1].mean() <= 0.5:
            self.spelling = None
        fast = tiktoken_engine(self._state) if self.wanted != "tokenizers" else None
        if fast is not None and self.spelling is not None and self._proven(fast, sample, ids):
            self.engine = fast
        elif self.wanted == "tiktoken":
            why = "gives other ids for some texts" if fast is not None else "runs only plain byte-level BPE"
            raise ModelError(f"data.engine: tiktoken cannot stand in for this tokenizer: it {why}. Leave it to `auto`.")

    def _proven(self, fast: TiktokenEngine, texts: Sequence[str], ids: Sequence[IntArray]) -> bool:
        """Whether both engines agree. The proof for the vocabulary is kept; the one for the rows is made every time."""
        if not agrees(fast, [*ADVERSARIAL, *texts], [*self.slow.ids(ADVERSARIAL), *ids]):
            return False
        versions = [version(library) for library in ("tiktoken", "tokenizers")]
        key = hashlib.sha256(repr([self._written, *versions]).encode()).hexdigest()
        known = self.proofs / key if self.proofs is not None else None
        if known is not None and known.is_file():
            return True
        proven = agrees_on_vocabulary(fast, self.slow)
        if proven and known is not None:
            known.parent.mkdir(parents=True, exist_ok=True)
            known.touch()
        return proven
