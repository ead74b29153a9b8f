"""Rows in files: one file, all that a pattern matches, a folder; on this machine or behind a URL."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from glob import iglob
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, ClassVar, Literal

from sftplug import DataError, DatasetSource, Field, InputPath, Row, did_you_mean
from sftplug_sources import lines, tables
from sftplug_sources.splits import Chosen, Found, sort_out
from sftplug_sources.stored import Stored, find, is_pattern, is_url

if TYPE_CHECKING:
    from sftplug import Recipe


class File(DatasetSource):
    """A file: .jsonl, .json, .csv, .tsv, .parquet, .arrow or .txt, each also .gz or .zst.

    A pattern (``data/*.jsonl``) or a folder stands for its files, in the order of their names; a URL (``https://``,
    ``s3://``, ``gs://``, ``az://`` …) for what `fsspec` reads. Where names of files or folders say splits, or README
    does in `configs`, or the folder is a saved ``DatasetDict``, one split is read: ``train`` unless `split` says
    another. Rows are read one by one, so a file may be larger than memory, and one behind a URL larger than the disk;
    but a list in a .json file is one value, and is read as a whole.
    """

    type: Literal["file"] = "file"
    path: InputPath = Field(examples=["rows.jsonl"])
    """The file, pattern, folder or URL; relative to the recipe that names it."""
    split: str | None = None
    """Split of a folder or a pattern, such as ``test``."""
    config: str | None = None
    """Configuration that README of the folder names."""
    columns: tuple[str, ...] | None = None
    """Columns to read; all by default."""
    field: str | None = None
    """Key under which a .json file holds the list of its rows, where it holds more than that."""
    delimiter: str | None = Field(None, min_length=1, max_length=1)
    """What separates the cells of a .csv or .tsv file, where it is neither comma nor tab."""
    shorthand: ClassVar[str] = "path"

    def check(self, recipe: Recipe) -> Iterable[str]:
        """Say so when a local file is not there, and when held-out rows would be those that are trained on."""
        if is_url(self.path):
            return
        if Path(self.path).is_dir():
            yield from self._unsure(recipe)
            return
        if Path(self.path).exists():
            return
        if Path(self.path).is_symlink():
            yield f"the symbolic link {self.path} leads to no file."
        elif not is_pattern(self.path):
            hub = "" if Path(self.path).suffix else " A dataset on the Hub is named with `hub` in place of `path`."
            yield f"the file {self.path} does not exist.{hub}"
        elif next(iglob(self.path, recursive=True), None) is None:  # noqa: PTH207 - folders may be patterns too
            yield f"no file matches the pattern {self.path}."

    def _unsure(self, recipe: Recipe) -> Iterator[str]:
        """Yield why it is not sure which files of a folder are meant."""
        try:
            found = self._found()
            chosen = found.choose(self.split)
        except DataError as error:
            yield str(error)
            return
        if self.split is None and chosen.said and any(section.source is self for section in recipe.data.eval):
            yield (
                f"{self.path} {chosen.said}. For held-out rows say which split they are: "
                f"`split: {found.likely('validation', 'test')}`."
            )

    @property
    def remote(self) -> bool:
        """Whether the files are behind a URL."""
        return is_url(self.path)

    def label(self) -> str:
        """Return the path, with the split if one is named."""
        return self.path if self.split is None else f"{self.path} ({self.split})"

    def notes(self) -> Iterable[str]:
        """Say which split of a folder is read, and what is left out."""
        if said := self._chosen().said:
            yield said

    def rows(self) -> Iterator[Row]:
        """Yield the rows of every file. Raises DataError naming file and line for what cannot be read."""
        total, files = 0, self._files()
        for file in files:
            count = 0
            try:
                for count, row in enumerate(self._rows_of(file), start=1):  # noqa: B007 - used after the loop
                    yield row
            except (OSError, EOFError, zlib.error) as error:  # a damaged archive, a connection that broke
                raise DataError(f"{file}: cannot be read: {error}") from error
            total += count
            # What writes a table in parts leaves some of them without rows; a text without lines is a mishap.
            if not count and not (_is_table(file) and (total or file is not files[-1])):
                raise DataError(f"{file}: holds no rows")

    def fingerprint(self) -> str | None:
        """Return a hash over names and contents of local files; None for a URL."""
        digest = hashlib.sha256()
        for file in self._files():
            if file.is_remote:
                return None
            digest.update(os.fsencode(file.name) + b"\0")
            with file.open() as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()

    def stamp(self) -> str | None:
        """Return names, sizes and times of local files; None for a URL."""
        stamps = [file.stamp() for file in self._files()]
        return None if None in stamps else repr(stamps)

    def _files(self) -> Sequence[Stored]:
        """Return the files with rows in them; a file of a folder that cannot be read is an error, not skipped."""
        return self._chosen().files

    def _chosen(self) -> Chosen:
        return self._found().choose(self.split)

    def _found(self) -> Found:
        return sort_out(find(self.path), self.config)

    def _rows_of(self, file: Stored) -> Iterator[Row]:
        return tables.choose_columns(self._read(file), self.columns, file.name)

    def _read(self, file: Stored) -> Iterator[Row]:
        ending = _ending(file.name)
        if ending in lines.ENDINGS:
            return lines.read(file, ending, lines.Reading(self.field, self.delimiter))
        if ending in tables.KINDS:
            return tables.read(file, ending, self.columns)
        known = sorted([*lines.ENDINGS, *tables.KINDS])
        what = f"cannot read a '{ending}' file" if ending else "its name has no ending that says how to read it"
        raise DataError(f"{file}: {what}.{did_you_mean(ending, known)} Known: {', '.join(known)}.")


def _is_table(file: Stored) -> bool:
    return _ending(file.name) in tables.KINDS


def _ending(name: str) -> str:
    """Return the ending that says how to read a file, that of a compressed one without ``.gz`` or ``.zst``."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes if suffix.lower() not in (".gz", ".zst")]
    return suffixes[-1] if suffixes else PurePosixPath(name).suffix
