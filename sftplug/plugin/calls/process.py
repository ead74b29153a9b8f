"""Calls of a row processor: what it makes of rows is checked, and every row that it reads is accounted for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sftplug.errors import DataError, PluginError, RowError, SftplugError
from sftplug.plugin.calls.check import checked, kind_of
from sftplug.plugin.components import RowProcessor, StreamProcessor
from sftplug.plugin.errors import failed, plugin_error, plugin_errors
from sftplug.types.conversation import Row
from sftplug.types.processing import Dropped, Made, RowContext, joined_origin

MOST_HELD = 10_000
"""So many rows may wait for their fate in a processor that does not say that it holds rows."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of rows."""

    of: Sequence[Row]
    """The rows that were given, at least one."""
    first: Sequence[bool]
    """For each of them, whether nothing was said of it before: a row may be part of several."""
    made: Sequence[Row] = ()
    """The rows that go on."""
    changed: bool = False
    """Whether one of these is another than was given."""
    dropped: str | RowError | None = None
    """Why none does."""


def row_columns(processor: RowProcessor) -> tuple[str, ...]:
    """Return the columns that a processor is told to look at. Raises PluginError for anything but names."""
    with plugin_errors(processor, "reads"):
        answer: object = processor.reads
    names: tuple[str, ...] = checked(processor, "reads", answer, tuple, "a tuple of names of columns")
    if not all(isinstance(name, str) for name in names):
        raise plugin_error(processor, "reads", f"must return a tuple of names of columns, not {names!r}")
    return names


def processor_fingerprint(processor: RowProcessor) -> str | None:
    """Return what else the rows of a processor depend on. Raises PluginError for anything but text and None."""
    with plugin_errors(processor, "fingerprint"):
        answer: object = processor.fingerprint()
    return None if answer is None else checked(processor, "fingerprint", answer, str, "text or None")


def outcomes(
    processor: RowProcessor, rows: Iterable[Row], context: RowContext, where: str = "process"
) -> Iterator[Outcome]:
    """Yield what becomes of `rows`, every one of which is in an outcome by the end.

    Raises PluginError for anything else that the processor returns or raises, with the origin of the row; what a stream
    says on purpose, as a DataError, is said of `where` the recipe names it.
    """
    if isinstance(processor, StreamProcessor):
        return _Stream(processor, where).outcomes(rows, context)
    return (_outcome(processor, row) for row in rows)


# --- one row ----------------------------------------------------------------------------------------------------------


def _outcome(processor: RowProcessor, row: Row) -> Outcome:
    try:
        answer: object = processor.process(row)
    except RowError as error:
        return Outcome((row,), (True,), dropped=error)
    except SftplugError:
        raise
    except Exception as error:
        raise PluginError(f"{row.origin}: {failed(processor, 'process', error)}") from error
    if isinstance(answer, Dropped):
        return Outcome((row,), (True,), dropped=_reason(processor, "process", answer))
    several = not isinstance(answer, Mapping)
    parts = answer if isinstance(answer, list | tuple) else [answer]
    if not parts:
        text = "must say why a row does not go on: return sftplug.Dropped(reason), not an empty list"
        raise plugin_error(processor, "process", text)
    datas = [_columns(processor, "process", part) for part in parts]
    if not several or len(datas) == 1:
        return Outcome((row,), (True,), (Row(datas[0], row.origin),), datas[0] != row.data)
    made = tuple(Row(data, f"{row.origin}#{number}") for number, data in enumerate(datas, start=1))
    return Outcome((row,), (True,), made, True)


def _columns(processor: RowProcessor, method: str, data: object) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        wanted = "the columns of a row (a mapping), a list of those of several, or sftplug.Dropped(reason)"
        raise plugin_error(processor, method, f"must return {wanted}, not {kind_of(data)}")
    for name in data:
        if not isinstance(name, str):
            raise plugin_error(processor, method, f"must name columns by text, not by {name!r}")
    return data


def _reason(processor: RowProcessor, method: str, dropped: Dropped) -> str | RowError:
    if isinstance(dropped.reason, RowError) or (isinstance(dropped.reason, str) and dropped.reason.strip()):
        return dropped.reason
    text = f"must give the reason for a row that it drops as text or as a RowError, not {dropped.reason!r}"
    raise plugin_error(processor, method, text)


# --- a stream ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Given(Row):
    """A row in the hands of a processor."""

    original: Row = field(compare=False, repr=False)
    fate: list[str] = field(default_factory=list, compare=False, repr=False)
    """Empty as long as nothing was said of it; else ``used`` or ``dropped``."""


@dataclass(slots=True)
class _Stream:
    """Rows on their way through a processor that sees all of them."""

    processor: StreamProcessor
    where: str
    """Where the recipe names the processor."""
    open: dict[int, _Given] = field(default_factory=dict)
    """The rows of which nothing was said so far, in the order in which they were read."""
    last: str = ""
    """Origin of the row that was read last."""
    foreign: SftplugError | None = None
    """What was raised by the rows themselves."""

    def outcomes(self, rows: Iterable[Row], context: RowContext) -> Iterator[Outcome]:
        for answer in self._answers(rows, context):
            if isinstance(answer, Dropped):
                yield self._drop(answer)
            elif isinstance(answer, _Given):
                yield self._outcome([answer], answer.original, changed=False)
            elif isinstance(answer, Made):
                yield self._make(answer)
            else:
                wanted = "the rows that it is given, sftplug.Made(data, of=[row]) or sftplug.Dropped(reason, row)"
                raise self._wrong(f"must yield {wanted}, not {kind_of(answer)}")
        if self.open:
            origins = [row.origin for row in self.open.values()]
            named = ", ".join(origins[:3]) + ", …" * (len(origins) > 3)
            raise self._wrong(f"read {len(origins):,} rows and said nothing of them ({named}): yield sftplug.Dropped")

    def _answers(self, rows: Iterable[Row], context: RowContext) -> Iterator[object]:
        try:
            answers: object = self.processor.stream(self._given(rows), context)
            if not isinstance(answers, Iterable):
                raise self._wrong(f"must yield rows, not return {kind_of(answers)}")
            yield from answers
        except RowError as error:
            text = f"raised RowError, which would end all rows: yield sftplug.Dropped(error, row) ({error})"
            raise self._wrong(text) from error
        except DataError as error:
            # The rows come through the processor's hands: what one before it, or the source, has said on purpose is
            # told as it is.
            if error is self.foreign:
                raise
            raise DataError(f"{self.where}: {error}") from error
        except SftplugError:
            raise
        except Exception as error:
            after = f"after {self.last}: " if self.last else ""
            raise PluginError(f"{after}{failed(self.processor, 'stream', error)}") from error

    def _given(self, rows: Iterable[Row]) -> Iterator[_Given]:
        try:
            for row in rows:
                self.last = row.origin
                given = _Given(row.data, row.origin, row)
                # By identity: two rows may be equal, and both must be accounted for.
                self.open[id(given)] = given
                if len(self.open) > MOST_HELD and not self.processor.holds_rows:
                    text = f"holds more than {MOST_HELD:,} rows, and its class does not say `holds_rows = True`"
                    raise self._wrong(text)
                yield given
        except SftplugError as error:
            self.foreign = error
            raise

    def _drop(self, dropped: Dropped) -> Outcome:
        row = dropped.row
        if not isinstance(row, _Given):
            raise self._wrong(f"must say which row is dropped, sftplug.Dropped(reason, row), not {kind_of(row)}")
        if row.fate:
            raise self._wrong(f"drops {row.origin}, of which it said before that it is {row.fate[0]}")
        self.open.pop(id(row))
        row.fate.append("dropped")
        return Outcome((row.original,), (True,), dropped=_reason(self.processor, "stream", dropped))

    def _make(self, made: Made) -> Outcome:
        of = list(made.of) if isinstance(made.of, list | tuple) else []
        if not of or not all(isinstance(row, _Given) for row in of):
            raise self._wrong("must say of which rows a row is made: sftplug.Made(data, of=[row, …])")
        rows = [row for row in of if isinstance(row, _Given)]
        data = _columns(self.processor, "stream", made.data)
        return self._outcome(rows, Row(data, joined_origin(rows)), changed=len(rows) > 1 or data != rows[0].data)

    def _outcome(self, rows: Sequence[_Given], made: Row, *, changed: bool) -> Outcome:
        if gone := [row.origin for row in rows if row.fate[:1] == ["dropped"]]:
            raise self._wrong(f"goes on with {gone[0]}, of which it said before that it is dropped")
        first = tuple(not row.fate for row in rows)
        for row in rows:
            if not row.fate:
                self.open.pop(id(row))
                row.fate.append("used")
        return Outcome(tuple(row.original for row in rows), first, (made,), changed)

    def _wrong(self, text: str) -> PluginError:
        return plugin_error(self.processor, "stream", text)
