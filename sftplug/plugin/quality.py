"""What the kit has found of a plugin, and what that is worth here and now.

``sftplug plugins test FOLDER`` runs the tests of a package, notes which components have kept the laws of their kind
there, and writes that beside the module: what was found, over which code, with which versions. No tier stands in that
file: it is worked out anew each time, from what was found, from the code as it lies here, and from what the plugin
offers. So it is lost when a line of the plugin changes or a component comes, and does not outlive what it was found of.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from sftplug.errors import PluginError
from sftplug.plugin.kinds import NOUNS
from sftplug.plugin.manager import DISTRIBUTION, IN_PROGRAM, QUALITY, Plugin
from sftplug.plugin.registry import Registry

CONTRACTS = ("0.1.0",)
"""Versions of the plugin API that are frozen: plugins as they were written for them run in sftplug's own tests."""
LIBRARIES = ("sftplug", "trl", "transformers", "peft", "torch")
"""What a plugin is tested with."""
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Found:
    """What the kit has found."""

    sha256: str
    """Hash of the plugin's code."""
    laws: Mapping[str, Sequence[str]]
    """``masking digits`` -> the laws that it has kept."""
    passed: int
    """Tests of the package that passed."""
    failed: int
    """Tests that did not."""
    skipped: int
    """Tests that were not run."""
    contract: str
    """The newest version of the plugin API that was frozen then."""
    versions: Mapping[str, str]
    """Library -> version that it was tested with."""
    date: str
    """The day, as ``2026-11-30``."""
    format: int = FORMAT


Tier = Literal["untested", "stale", "partly", "lawful"]


@dataclass(frozen=True, slots=True)
class Quality:
    """What is known of a plugin's quality."""

    tier: Tier
    """``lawful``: all that it offers has kept all laws of its kind, and all tests of its package have passed;
    ``partly``: not all; ``stale``: that was other code; ``untested``: the kit has not run."""
    text: str
    """The same in words, with what is lacking."""
    notes: tuple[str, ...] = ()
    """A sentence for each way in which it was tested otherwise than it is used here."""
    found: Found | None = None
    """What the kit has found."""

    def __str__(self) -> str:
        return "; ".join((f"{self.tier}: {self.text}", *self.notes))


def quality_of(plugin: Plugin, registry: Registry) -> Quality | None:
    """Return what is known of a plugin's quality; None for sftplug's own, and for what is no distribution."""
    if plugin.distribution in (DISTRIBUTION, "file", IN_PROGRAM):
        return None
    try:
        found = read_found(plugin)
    except PluginError as error:
        return Quality("untested", str(error))
    if found is None:
        return Quality("untested", "the kit has not run on it (`sftplug plugins test FOLDER`, by its author)")
    if found.sha256 != plugin.sha256:
        return Quality("stale", "the kit has run on other code than this", found=found)
    lacking = [name for name in offered(plugin, registry) if name not in found.laws]
    return Quality(*_judged(found, lacking), tuple(_otherwise(found)), found)


def _judged(found: Found, lacking: Sequence[str]) -> tuple[Tier, str]:
    laws = sum(map(len, found.laws.values()))
    text = f"{laws} laws kept by {len(found.laws)} of {len(found.laws) + len(lacking)} components, "
    text += f"{found.passed} of {found.passed + found.failed} tests passed, contract {found.contract}"
    if lacking:
        return "partly", f"{text}; no laws tried on {', '.join(lacking)}"
    return ("lawful" if found.passed and not found.failed else "partly"), text


def _otherwise(found: Found) -> Iterator[str]:
    here = versions()
    differ = {name: (then, here.get(name, "not installed")) for name, then in found.versions.items()}
    told = [f"{name} {then} (here {now})" for name, (then, now) in differ.items() if then != now]
    if told:
        yield f"tested with {', '.join(told)}"
    if found.skipped:
        yield f"{found.skipped} tests were skipped"
    if found.contract not in CONTRACTS:
        yield f"contract {found.contract} is not one that this sftplug keeps: {', '.join(CONTRACTS)}"


def offered(plugin: Plugin, registry: Registry) -> list[str]:
    """Return ``masking digits``, ``command lowest-loss`` … for all that a plugin offers."""
    names = [
        f"{NOUNS[kind]} {name}"
        for kind, offers in registry.offers.items()
        for name, offer in offers.items()
        if offer.plugin.name == plugin.name and offer.library is None
    ]
    commands = registry.plugins.call("sftplug_commands", [plugin.name]).get(plugin.name)
    return [*names, *(f"command {name}" for name in commands or ())]


def versions() -> dict[str, str]:
    """Return library -> version that is installed."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # it is not there, which is said
    return found


# --- the file ---------------------------------------------------------------------------------------------------------


def file_of(plugin: Plugin) -> Path:
    """Return the file of what was found: in a plugin's package, or beside its module."""
    source = plugin.source
    return source.with_name(QUALITY if source.name == "__init__.py" else f"{source.stem}.{QUALITY}")


def read_found(plugin: Plugin) -> Found | None:
    """Return what was found of a plugin; None where nothing is there. Raises PluginError for what cannot be read."""
    file = file_of(plugin)
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        return Found(**known) if known["format"] == FORMAT else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise PluginError(f"{file} cannot be read: {error}") from error


def write_found(plugin: Plugin, found: Found) -> Path:
    """Write what was found, and return the file."""
    file = file_of(plugin)
    file.write_text(json.dumps(asdict(found), indent=2) + "\n", encoding="utf-8")
    return file
