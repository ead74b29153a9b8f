"""The versions of the libraries beneath: what is refused, in which words, and that looking costs no import."""

import re
from importlib.metadata import requires, version

import pytest
from typer.testing import CliRunner

from sftplug.cli import app
from sftplug.errors import MissingLibraryError
from sftplug.libraries.versions import refuse_unsupported

INSTALLED = {"trl": "1.8.0", "transformers": "6.0.0", "peft": "0.18.1"}


@pytest.fixture
def others(monkeypatch):
    """Other libraries are installed than are."""
    monkeypatch.setattr("sftplug.libraries.versions.version", lambda name: INSTALLED.get(name) or version(name))
    refuse_unsupported.cache_clear()
    yield
    refuse_unsupported.cache_clear()


@pytest.mark.parametrize("name", ["torch", "trl", "transformers", "peft", "datasets", "accelerate", "bitsandbytes"])
def test_what_is_installed_here_is_supported_and_an_old_version_of_any_is_not(name, others, monkeypatch):
    monkeypatch.setattr("sftplug.libraries.versions.version", version)
    assert refuse_unsupported() is None
    refuse_unsupported.cache_clear()
    old = {name: "0.0.1"}
    monkeypatch.setattr("sftplug.libraries.versions.version", lambda asked: old.get(asked) or version(asked))
    with pytest.raises(MissingLibraryError) as refused:
        refuse_unsupported()
    assert re.fullmatch(rf"{name} 0\.0\.1 is installed, and sftplug supports {name}>=.* Run: .*", str(refused.value))


def test_versions_that_are_not_supported_are_refused_with_those_that_are(others, recipe_file):
    for command in (["check"], ["preview"], ["train"]):
        result = CliRunner().invoke(app, [*command, str(recipe_file())])
        assert isinstance(result.exception, MissingLibraryError)
    said = str(result.exception).splitlines()
    assert len(said) == len(INSTALLED)
    for name, found in INSTALLED.items():
        start = f"{name} {found} is installed, and sftplug supports {name}"
        (line,) = [line for line in said if line.startswith(start)]
        known = re.search(r"Run: pip install '(.+)'$", line)[1]
        assert set(known.removeprefix(name).split(",")) == set(packaged(name).split(","))
    assert "peft 0.18.1 is installed, and sftplug supports peft>=0.19,<1. Run: pip install 'peft>=0.19,<1'" in said


def packaged(name):
    (line,) = [line for line in requires("sftplug") if re.match(rf"{name}[<>=]", line)]
    return line.removeprefix(name)
