"""Plugins on the package index that pip is set up for, by the index's simple API (PEP 503, 691, 700 and 714).

PyPI has no search for programs, and takes no classifiers but those of its own list, of which ``Framework :: sftplug``
is none. So a plugin is found by its name, which begins with `PREFIX`, and known by `KEYWORD` among the keywords of its
metadata, which any index has; or by the classifier, on a company's own index that takes it.
"""

from __future__ import annotations

import ast
import base64
import importlib.util
import json
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from email import message_from_string
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import unquote, urldefrag, urljoin, urlsplit
from urllib.request import Request, urlopen

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from sftplug.errors import PluginError
from sftplug.types.kind_names import CLASSIFIER, KEYWORD, PREFIX
from sftplug.util.redact import redact

PYPI = "https://pypi.org/simple"
_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_LONGEST = 200_000_000
"""Bytes that are read of one answer; PyPI's list of names is a fifth of it."""


@dataclass(frozen=True, slots=True)
class ListedPlugin:
    """A plugin on an index."""

    name: str
    version: str
    """Of the newest release that has a wheel."""
    summary: str
    needs: str
    """The versions of sftplug that it is for, as it says; empty where it names none."""

    def fits(self, version: str) -> bool:
        """Whether it is for this version of sftplug."""
        return Requirement(f"sftplug{self.needs}").specifier.contains(version, prereleases=True)


def search(words: Iterable[str], settings: Mapping[str, str] | None = None) -> list[ListedPlugin]:
    """Return the plugins in whose name, summary or keywords all `words` stand, by name.

    `settings` are pip's, by default those of this interpreter. Raises PluginError for an index that cannot be asked.
    """
    settings = pip_settings() if settings is None else settings
    wanted = [word.lower() for word in words]
    found: dict[str, ListedPlugin] = {}
    for address in addresses(settings):
        index = Index(address, settings)
        for name in index.names():
            if name not in found and (plugin := index.plugin(name, wanted)) is not None:
                found[name] = plugin
    return [found[name] for name in sorted(found)]


# --- pip's settings ---------------------------------------------------------------------------------------------------


def pip_settings() -> dict[str, str]:
    """Return pip's settings by name, of its files and of the environment; none where there is no pip."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    pairs = [line.partition("=") for line in told.stdout.splitlines()] if told.returncode == 0 else []
    ranked = sorted(pairs, key=lambda pair: [":env:" in pair[0], pair[0].startswith("install.")])
    # "global.index-url='https://…'": what is said for `pip install` alone, and in the environment, has the last word.
    return {key.rpartition(".")[2]: str(ast.literal_eval(value)) for key, _, value in ranked if value}


def addresses(settings: Mapping[str, str]) -> list[str]:
    """Return the addresses of the indexes that pip asks, without those that are folders.

    Raises PluginError where pip is to ask none.
    """
    if settings.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        raise PluginError("pip is told to ask no index (`no-index`): there is nothing to search.")
    named = [settings.get("index-url") or PYPI, *settings.get("extra-index-url", "").split()]
    return [address for address in named if urlsplit(address).scheme in ("http", "https")]


# --- an index ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Index:
    """A package index."""

    address: str
    settings: Mapping[str, str]

    def names(self) -> list[str]:
        """Return the names of packages that are called as plugins are, in their normal form."""
        page = self._read(f"{self.address.rstrip('/')}/")
        known = json.loads(page)["projects"] if _is_json(page) else ({"name": link.text} for link in _links(page))
        return sorted({name for item in known if (name := canonicalize_name(item["name"])).startswith(PREFIX)})

    def plugin(self, name: str, words: Iterable[str]) -> ListedPlugin | None:
        """Return the newest release of a package if it is a plugin, and has all `words`."""
        newest = max(self._wheels(name), key=lambda wheel: wheel[0], default=None)
        if newest is None:
            return None
        told = message_from_string(self._read(f"{newest[1]}.metadata"))
        keywords = told.get("Keywords", "").replace(",", " ").split()
        text = " ".join([name, told.get("Summary", ""), *keywords]).lower()
        is_one = KEYWORD in keywords or CLASSIFIER in told.get_all("Classifier", [])
        if not is_one or not all(word in text for word in words):
            return None
        return ListedPlugin(name, str(newest[0]), told.get("Summary", ""), _needs(told.get_all("Requires-Dist", [])))

    def _wheels(self, name: str) -> Iterator[tuple[Version, str]]:
        """Yield version and address of each wheel whose metadata can be read by itself; no test versions."""
        address = f"{self.address.rstrip('/')}/{name}/"
        page = self._read(address)
        files = json.loads(page)["files"] if _is_json(page) else [link.file() for link in _links(page)]
        for file in files:
            has_metadata = file.get("core-metadata") or file.get("dist-info-metadata")
            version = _version(file["filename"])
            if has_metadata and not file.get("yanked") and version is not None and not version.is_prerelease:
                yield version, urldefrag(urljoin(address, file["url"])).url

    def _read(self, address: str) -> str:
        """Return what stands at an address. Raises PluginError, without the password in the index's address."""
        own, wanted = urlsplit(self.address), urlsplit(address)
        bare = wanted._replace(netloc=wanted.netloc.rpartition("@")[2])
        request = Request(bare.geturl(), headers={"Accept": _ACCEPT, "User-Agent": "sftplug"})
        if own.username and bare.netloc == own.netloc.rpartition("@")[2]:
            login = f"{unquote(own.username)}:{unquote(own.password or '')}"
            request.add_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
        try:
            with urlopen(request, timeout=self._timeout, context=self._context) as answer:
                return str(answer.read(_LONGEST).decode("utf-8"))
        except (OSError, ValueError) as error:  # URLError is an OSError
            raise PluginError(_unreachable(bare.geturl(), error)) from None

    @cached_property
    def _context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.settings.get("cert") or None)

    @property
    def _timeout(self) -> float:
        return float(self.settings.get("timeout") or self.settings.get("default-timeout") or 15)


def _unreachable(address: str, error: Exception) -> str:
    why = error.reason if isinstance(error, URLError) else error
    return (
        f"the package index cannot be asked: {redact(address)}: {redact(str(why))}. `pip config list` shows which one "
        "pip is set up for, and `pip config set global.index-url URL` names another."
    )


def _version(filename: str) -> Version | None:
    try:
        return parse_wheel_filename(filename)[1]
    except InvalidWheelFilename:
        return None  # of sources


def _needs(requirements: Iterable[str]) -> str:
    """Return the versions of sftplug that are required, as in ``>=0.1,<0.3``."""
    for text in requirements:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue  # pip will say so
        if canonicalize_name(requirement.name) == "sftplug" and requirement.marker is None:
            return str(requirement.specifier)
    return ""


# --- pages of HTML ----------------------------------------------------------------------------------------------------


def _is_json(page: str) -> bool:
    return page.lstrip().startswith("{")


@dataclass(slots=True)
class _Link:
    """A link of a page: to a package, or to a file."""

    attributes: dict[str, str | None]
    text: str = ""

    def file(self) -> dict[str, Any]:
        """Return what the JSON form says of the same file."""
        known = {name.removeprefix("data-"): value for name, value in self.attributes.items()}
        metadata = known.get("core-metadata") or known.get("dist-info-metadata")
        return {
            "filename": self.text.strip(),
            "url": known.get("href") or "",
            "yanked": "yanked" in known,
            "core-metadata": metadata not in (None, "", "false"),
        }


class _Links(HTMLParser):
    """Collects the links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[_Link] = []
        self._is_open = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a link."""
        self._is_open = tag == "a"
        if self._is_open:
            self.found.append(_Link(dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """End a link."""
        self._is_open = self._is_open and tag != "a"

    def handle_data(self, data: str) -> None:
        """Take the text of a link."""
        if self._is_open:
            self.found[-1].text += data


def _links(page: str) -> list[_Link]:
    parser = _Links()
    parser.feed(page)
    return parser.found


# --- install ----------------------------------------------------------------------------------------------------------


def install(requirement: str, constraint: str) -> int:
    """Let pip install a requirement into this environment, under a constraint; return its exit code.

    Raises PluginError where there is no pip.
    """
    if importlib.util.find_spec("pip") is None:
        raise PluginError(
            f"there is no pip in this environment. Install '{requirement}' with what made it: `uv pip install`, say."
        )
    with tempfile.TemporaryDirectory(prefix="sftplug-") as folder:
        file = Path(folder) / "constraint.txt"
        file.write_text(f"{constraint}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "--constraint", str(file), requirement]
        return subprocess.run(command, check=False).returncode
