"""Run the tests of a package of plugins, and write beside each plugin what was found."""

from __future__ import annotations

import datetime
import os
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

from sftplug.errors import PluginError
from sftplug.libraries.versions import require
from sftplug.plugin.kinds import NOUNS
from sftplug.plugin.manager import GROUP, Plugin, load_plugins
from sftplug.plugin.quality import CONTRACTS, Found, Quality, offered, quality_of, versions, write_found
from sftplug.plugin.registry import Registry, build_registry
from sftplug.testing.proofs import laws_kept


def examine(folder: str | Path) -> dict[str, Quality]:
    """Run the tests of the package in `folder`, and write what was found beside its plugins; return plugin -> quality.

    The package is to be installed from there (``pip install -e FOLDER``). Of each component it is noted which laws it
    has kept in these tests, of all laws of its kind; of the package, how many tests passed and failed, and with which
    versions. Wheels that are built from then on take the file along where ``pyproject.toml`` includes it, as that of
    ``sftplug plugins new`` does. Raises PluginError for a folder that is no such package, MissingLibraryError where
    pytest is not installed.
    """
    folder = Path(folder).resolve()
    names = _plugins_of(folder)
    counts = _test(folder)
    registry = build_registry(load_plugins(only=names))
    found = {}
    for name in names:
        plugin = _installed(registry, name, folder)
        write_found(plugin, _found(plugin, registry, counts))
        quality = quality_of(plugin, registry)
        assert quality is not None
        found[name] = quality
    return found


def main(arguments: list[str] | None = None) -> int:
    """Examine the package in a folder, by default the working folder; say what was found. Returns the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        found = examine(given[0] if given else ".")
    except PluginError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the only thing that this program has to say
        return 2
    for name, quality in found.items():
        print(f"{name}: {quality}")  # noqa: T201
    return 0 if all(quality.tier == "lawful" for quality in found.values()) else 1


def _plugins_of(folder: Path) -> list[str]:
    """Return the names of the plugins of a package."""
    file = folder / "pyproject.toml"
    if not file.is_file():
        raise PluginError(f"{folder} is not the folder of a package: it has no pyproject.toml.")
    try:
        project = tomllib.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise PluginError(f"{file} cannot be read: {error}") from error
    names = sorted(project.get("project", {}).get("entry-points", {}).get(GROUP, {}))
    if not names:
        raise PluginError(f"{file} names no plugin: it has no table `[project.entry-points.{GROUP}]`.")
    if not (folder / "tests").is_dir():
        raise PluginError(f"{folder} has no tests: a folder `tests`, in which its components are held to their laws.")
    return names


class _Counter:
    """Counts the tests that passed, failed and were skipped."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Count a test by how it ended, or by what it could not begin or end with."""
        if report.when == "call" or report.outcome != "passed":
            self.counts[report.outcome] += 1

    def pytest_collectreport(self, report: Any) -> None:
        """Count a file that could not be read as a failure."""
        self.counts["failed"] += report.failed


def _test(folder: Path) -> Counter[str]:
    """Run the tests of a package, in this process: what is noted of laws is noted here."""
    pytest = require("pytest", needed_by="sftplug plugins test")
    counter, before = _Counter(), Path.cwd()
    os.chdir(folder)
    try:
        pytest.main(["-q", "-p", "no:cacheprovider", "tests"], plugins=[counter])
    finally:
        os.chdir(before)
    return counter.counts


def _installed(registry: Registry, name: str, folder: Path) -> Plugin:
    """Return a plugin that is installed from a folder. Raises PluginError."""
    plugin = registry.plugins.loaded.get(name)
    if plugin is None:
        broken = registry.plugins.broken.get(name)
        raise PluginError(str(broken) if broken else f"'{name}' is not installed. Run: pip install -e {folder}")
    if folder not in plugin.source.resolve().parents:
        raise PluginError(f"'{name}' is installed from {plugin.source}. Run: pip install -e {folder}")
    return plugin


def _found(plugin: Plugin, registry: Registry, counts: Counter[str]) -> Found:
    classes = {f"{NOUNS[kind]} {name}": offer for kind, of in registry.offers.items() for name, offer in of.items()}
    laws = {}
    for item in offered(plugin, registry):
        kind = next((noun for noun in NOUNS.values() if item.startswith(f"{noun} ")), "command")
        subject = classes[item].component if item in classes else item.removeprefix("command ")
        if kept := laws_kept(kind, subject):
            laws[item] = kept
    return Found(
        plugin.sha256,
        laws,
        passed=counts["passed"],
        failed=counts["failed"],
        skipped=counts["skipped"],
        contract=CONTRACTS[-1],
        versions=versions(),
        date=str(datetime.date.today()),
    )
