"""Training rows that occur in the held-out data."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from sftplug import DatasetSource, Dropped, Field, Made, Row, RowContext, RowError, StreamProcessor
from sftplug_rows.texts import chosen, texts_in, words_of

if TYPE_CHECKING:
    from sftplug import Recipe


FEWEST = 8
"""Words of the shortest n-gram in Brown et al.; what is shorter, as a role or a yes, says nothing about where from."""


class Decontaminate(StreamProcessor):
    """Drop training rows that occur in the held-out data, which would otherwise measure what was learned by heart.

    Rows are compared by their words in small letters, without punctuation. By default a row is dropped that has all
    the words of a held-out one, in their order. With `ngram`, one that shares so many words in a row with any; 13 is
    what GPT-3 was decontaminated with (Brown et al. 2020, arXiv:2005.14165, appendix C). A held-out text that is
    shorter than that, but has 8 words, is found where a text of the row is equal to it. What is held out lies in
    memory: about 100 bytes for each row, or for each word with `ngram`.
    """

    type: Literal["decontaminate"] = "decontaminate"
    ngram: int | None = Field(None, ge=2)
    """Words in a row that are enough, such as 13; null compares whole rows."""
    columns: tuple[str, ...] | None = Field(None, min_length=1)
    """Columns that are compared, of training and of held-out rows; all by default."""
    against: DatasetSource | None = None
    """More rows to compare with, such as those of a benchmark: ``{path: test.jsonl}``, or any other source."""
    common: int = Field(10, ge=1)
    """An n-gram that stands in more held-out rows than this is what all rows say, such as a system prompt, and tells
    nothing."""
    shorthand: ClassVar[str] = "ngram"

    def check(self, recipe: Recipe) -> Iterable[str]:
        """Say so when nothing is held out to compare with."""
        if self.against is not None:
            return
        if recipe.data.eval_fraction:
            yield (
                "compares with rows of `data.eval`, and `data.eval_fraction` draws the held-out rows when all rows are "
                "processed. Use `dedupe` instead: of equal rows only one is left to draw."
            )
        elif not recipe.data.eval:
            yield "there are no held-out rows to compare with: name some in `data.eval`, or others in `against`."

    def stream(self, rows: Iterator[Row], context: RowContext) -> Iterator[Row | Made | Dropped]:
        """Pass on what does not occur in the held-out rows."""
        more = () if self.against is None else self.against.rows()
        known = self._known(chain(context.held_out(), more))
        for row in rows:
            try:
                found = next((known[key] for key in self._keys(row.data) if key in known), None)
            except RowError as error:
                yield Dropped(error, row)
                continue
            same = "says the same as" if self.ngram is None else f"shares {self.ngram} words or a whole text with"
            yield row if found is None else Dropped(f"{same} the held-out row {found}", row)

    def _known(self, held_out: Iterable[Row]) -> dict[int, str]:
        """Return hash -> origin of what must not occur."""
        counts, origins = Counter[int](), dict[int, str]()
        for row in held_out:
            # What a row says twice counts once: `common` is a number of rows.
            keys = set(self._keys(row.data))
            counts.update(keys)
            for key in keys:
                origins.setdefault(key, row.origin)
        if self.ngram is None:
            return origins
        return {key: origin for key, origin in origins.items() if counts[key] <= self.common}

    def _keys(self, data: Mapping[str, Any]) -> Iterator[int]:
        """Yield a hash of each n-gram of a row, or of the row."""
        texts = [words_of(text) for text in texts_in(chosen(data, self.columns))]
        if self.ngram is None:
            yield _hash("\n".join(" ".join(words) for words in texts))
            return
        for words in texts:
            count = len(words) - self.ngram + 1
            if count <= 0 and len(words) >= FEWEST:
                # A mark that no word has: a whole text is the same as another whole text, and not as some words within
                # one.
                yield _hash(f"\0{' '.join(words)}")
            yield from (_hash(" ".join(words[start : start + self.ngram])) for start in range(count))


def _hash(text: str) -> int:
    """Return 64 bits that are the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())
