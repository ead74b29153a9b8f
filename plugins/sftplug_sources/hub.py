"""Rows of a dataset on the Hub."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from sftplug import DataError, DatasetSource, Field, Row
from sftplug_sources.tables import as_stored, choose_columns


class Hub(DatasetSource):
    """A dataset on the Hub, streamed: nothing is downloaded that is not read."""

    type: Literal["hub"] = "hub"
    hub: str = Field(examples=["tatsu-lab/alpaca"])
    """Name of the dataset, such as ``tatsu-lab/alpaca``."""
    config: str | None = None
    """Configuration of the dataset."""
    split: str = "train"
    """Split of the dataset."""
    revision: str | None = None
    """Commit, tag or branch. Only rows of a commit are cached between runs."""
    columns: tuple[str, ...] | None = None
    """Columns to read; all by default."""
    shorthand: ClassVar[str] = "hub"

    @property
    def remote(self) -> bool:
        """Rows are streamed from the Hub."""
        return True

    def label(self) -> str:
        """Return name, configuration and split."""
        return "/".join(part for part in (self.hub, self.config, self.split) if part)

    def rows(self) -> Iterator[Row]:
        """Yield the rows. Raises DataError when the dataset cannot be had."""
        import datasets

        try:
            table = datasets.load_dataset(
                self.hub, self.config, split=self.split, revision=self.revision, streaming=True
            )
            rows = (Row(row, f"{self.hub}/{self.split}[{index}]") for index, row in enumerate(undecoded(table)))
            yield from choose_columns(rows, self.columns, self.hub)
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            raise DataError(f"dataset {self.hub} (split {self.split}): {error}") from error

    def fingerprint(self) -> str | None:
        """Return the commit, if the revision is one: nothing else stays the same."""
        return self.revision if re.fullmatch(r"[0-9a-f]{40}", self.revision or "") else None


def undecoded(table: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a streamed dataset as they are stored.

    A dataset may call a column an image, a recording or a video: decoded, whatever path or address stands in it would
    be opened. Undecoded it is its bytes and its path, and needs no library that decodes.
    """
    if not table.features:
        yield from table
        return
    table = table.decode(False)
    yield from as_stored(table, table.features.arrow_schema)
