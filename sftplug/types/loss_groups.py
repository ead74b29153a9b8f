"""What rows are told apart by in the loss: their source, and the tags that the recipe takes from their columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sftplug.types.tokens import MOST_SOURCES

NO_TAG = "(none)"
"""The value of a tag that a row does not have."""


@dataclass(frozen=True, slots=True)
class LossGroup:
    """Rows of one source that have the same tags."""

    source: int
    """Index of the source."""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LossGroups:
    """The rows that the number in `TokenBatch.provenance` tells apart; without tags, each source is a group."""

    sources: tuple[str, ...]
    """Short names of the sources, no two alike."""
    groups: tuple[LossGroup, ...]

    @classmethod
    def of(cls, sources: Sequence[str], groups: Sequence[LossGroup] = ()) -> LossGroups:
        """Return the groups of sources of these names; without any, a group each."""
        return cls(tuple(sources), tuple(groups) or tuple(LossGroup(index) for index in range(len(sources))))

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.groups)

    @property
    def tags(self) -> tuple[str, ...]:
        """The names of all tags."""
        return tuple(dict.fromkeys(name for group in self.groups for name in group.tags))

    def by_tag(self, tag: str) -> Iterator[tuple[str, list[int]]]:
        """Yield each value of a tag with the numbers of its groups."""
        found: dict[str, list[int]] = {}
        for number, group in enumerate(self.groups):
            found.setdefault(group.tags.get(tag, NO_TAG), []).append(number)
        yield from found.items()


class LossGroupCounter:
    """Numbers the groups of a split as its rows come; the number of a source without tags is its index."""

    def __init__(self, tags: Sequence[Sequence[str]]) -> None:
        """`tags` are the names of the tags of each source."""
        self.tagged = any(tags)
        self._known: dict[tuple[int, tuple[tuple[str, str], ...]], int] = {}
        # Numbered ahead, so that sources keep their places where the first row comes from the second of them.
        for index in range(0 if self.tagged else len(tags)):
            self._known[index, ()] = index

    def number(self, source: int, tags: Mapping[str, str]) -> int:
        """Return the number of the group of a row. Raises ValueError where there are more than can be told apart."""
        key = (source, tuple(tags.items()) if self.tagged else ())
        number = self._known.setdefault(key, len(self._known))
        if self.tagged and number >= MOST_SOURCES:
            raise ValueError(f"more than {MOST_SOURCES:,} combinations of source and tags")
        return number

    def groups(self) -> list[LossGroup]:
        """Return all of them, by number."""
        return [LossGroup(source, dict(tags)) for source, tags in self._known]
