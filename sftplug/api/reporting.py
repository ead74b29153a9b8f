"""Show what came of runs, on a page of HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path


def report(
    runs: str | Path | Sequence[str | Path],
    file: str | Path | None = None,
    *,
    rows: int = 3,
    without: Iterable[str] = (),
) -> str:
    """Return what came of runs as a page of HTML, and write it to `file` if one is named.

    `runs` is the folder of a run, finished or not, or a folder that holds some, or several of both, which are laid over
    each other. The page needs neither network nor scripts; its first `rows` training rows are drawn as they were
    trained, if their sources are still as they were, and the plugins that make them are not among `without`: names of
    plugins that are not loaded. Raises RunError where there is no run, or where `file` cannot be written; PluginError
    for a name in `without` that no plugin has, neither an installed one nor one of the runs.
    """
    from sftplug.reporting import collect, find_runs, to_html
    from sftplug.reporting.rows import refuse_unknown_plugins, with_rows
    from sftplug.storage.writable import refuse_unwritable_file, write_file

    if file is not None:
        refuse_unwritable_file(Path(file))
    folders = [Path(runs)] if isinstance(runs, str | Path) else list(map(Path, runs))
    found, names = collect(find_runs(folders).runs), tuple(without)
    refuse_unknown_plugins(found, names)
    drawn = [with_rows(item, rows, names) if rows and item.ledger else item for item in found]
    page = to_html("sftplug report: " + ", ".join(item.name for item in drawn), drawn)
    if file is not None:
        write_file(Path(file), page)
    return page
