"""Plugins are found on the package index that pip is set up for, and installed from it: here, one on this machine."""

import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile

import pytest
from loopback import serving

from sftplug import PluginError, add_plugin, search_plugins
from sftplug.libraries.package_index import addresses, pip_settings, search

JSON, HTML = "application/vnd.pypi.simple.v1+json", "text/html"
CODE = """import sftplug

class Loud(sftplug.Masking):
    '''All that is trainable, loudly.'''
    type: str = "loud"
    def weights(self, tokens):
        return tokens.trainable

@sftplug.hookimpl
def sftplug_maskings():
    return [Loud]
"""


def wheel(name, version, *, summary="Masks, loudly.", needs="sftplug", plugin=True):
    """Return file name, bytes and metadata of a distribution with one module."""
    module = name.replace("-", "_")
    told = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nSummary: {summary}\n"
    told += "Keywords: sftplug-plugin\n" if plugin else ""
    told += f"Requires-Dist: {needs}\n"
    info = f"{module}-{version}.dist-info"
    files = {
        f"{module}.py": CODE,
        f"{info}/METADATA": told,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        **({f"{info}/entry_points.txt": f"[sftplug]\nloud = {module}\n"} if plugin else {}),
    }
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return f"{module}-{version}-py3-none-any.whl", packed.getvalue(), told


PACKAGES = {
    "sftplug-loud": [wheel("sftplug-loud", "1.0"), wheel("sftplug-loud", "1.10"), wheel("sftplug-loud", "2.0rc1")],
    "sftplug-far": [wheel("sftplug-far", "3.0", summary="For a later sftplug.", needs="sftplug>=7,<8")],
    "sftplug-quiet": [wheel("sftplug-quiet", "1.0", summary="Named so, and no plugin.", plugin=False)],
    "numpy": [],
}


def pages(form):
    """Return the files of an index, in one form or the other of the simple API."""
    files = {}
    for name, wheels in PACKAGES.items():
        listed = []
        for file, packed, told in wheels:
            files[f"/files/{file}"] = ("application/octet-stream", packed)
            files[f"/files/{file}.metadata"] = ("text/plain", told.encode())
            sums = {"sha256": hashlib.sha256(told.encode()).hexdigest()}
            whole = {"sha256": hashlib.sha256(packed).hexdigest()}
            listed.append({"filename": file, "url": f"../../files/{file}", "hashes": whole, "core-metadata": sums})
        files[f"/simple/{name}/"] = _page(form, {"name": name, "files": listed}, listed)
    projects = [{"name": name} for name in PACKAGES]
    files["/simple/"] = _page(form, {"projects": projects}, projects)
    return files


def _page(form, data, items):
    if form == JSON:
        return JSON, json.dumps({"meta": {"api-version": "1.1"}, **data}).encode()
    links = [
        f'<a href="{item["url"]}#sha256=x" data-core-metadata="true">{item["filename"]}</a>'
        if "url" in item
        else f'<a href="/simple/{item["name"]}/">{item["name"]}</a>'
        for item in items
    ]
    return HTML, f"<!DOCTYPE html><html><body>{'<br>'.join(links)}</body></html>".encode()


def environment(address, **more):
    """Return an environment in which pip knows of this index alone."""
    cleared = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    pip = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": f"{address}/simple", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return {**cleared, **pip, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", **more}


def sftplug(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "sftplug", "plugins", *map(str, arguments)],
        env={**environment, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("form", [JSON, HTML])
def test_plugins_are_found_by_name_and_keyword(form):
    with serving(pages(form)) as (address, seen):
        settings = {"index-url": f"{address}/simple"}
        far, loud = search([], settings)
        assert (loud.name, loud.version, loud.summary, loud.needs) == ("sftplug-loud", "1.10", "Masks, loudly.", "")
        assert loud.fits("0.1.0")
        assert (far.needs, far.fits("0.1.0"), far.fits("7.1")) == ("<8,>=7", False, True)
        assert [found.name for found in search(["MASKS", "loudly"], settings)] == ["sftplug-loud"]
        assert search(["nothing"], settings) == []
        assert "/simple/numpy/" not in {path for path, _, _ in seen["requests"]}


def test_the_index_is_the_one_of_pip_with_its_login(monkeypatch):
    with serving(pages(JSON)) as (address, seen):
        with_login = address.replace("http://", "http://me:se%40cret@")
        for name, value in environment(with_login).items():
            monkeypatch.setenv(name, value)
        assert addresses(pip_settings()) == [f"{with_login}/simple"]
        assert len(search([])) == 2
        assert {login for _, login, _ in seen["requests"]} == {"Basic bWU6c2VAY3JldA=="}
    assert addresses({}) == ["https://pypi.org/simple"]
    more = {"index-url": "file:///wheels", "extra-index-url": "https://a.example/simple  https://b.example/simple"}
    assert addresses(more) == ["https://a.example/simple", "https://b.example/simple"]
    with pytest.raises(PluginError, match="pip is told to ask no index"):
        addresses({"no-index": "1"})


def test_without_a_network_it_says_so_and_tells_no_password():
    with serving({}) as (address, _):
        pass  # nobody answers there any more
    settings = {"index-url": f"{address.replace('http://', 'http://me:secret@')}/simple"}
    with pytest.raises(
        PluginError, match=r"the package index cannot be asked: http://127\.0\.0\.1:\d+/simple/: "
    ) as told:
        search([], settings)
    assert "refused" in str(told.value)
    assert "secret" not in str(told.value)
    told = sftplug("search", **environment(address))
    assert told.returncode == 2
    assert "the package index cannot be asked" in told.stderr
    assert "Traceback" not in told.stderr


def test_a_plugin_is_found_and_added_and_shows_what_it_offers(tmp_path):
    """Into a folder that stands for the environment: pip finds sftplug itself where it is."""
    there = {"PIP_TARGET": str(tmp_path), "PIP_NO_DEPS": "1", "PYTHONPATH": str(tmp_path)}
    with serving(pages(JSON)) as (address, _):
        known = environment(address, **there)
        listed = sftplug("search", "masks", **known)
        assert listed.returncode == 0, listed.stderr
        assert "sftplug-loud" in listed.stdout
        assert "1.10" in listed.stdout
        assert "sftplug-far" not in listed.stdout
        assert "<8,>=7, not 0.1.0" in sftplug("search", "later", **known).stdout
        added = sftplug("add", "sftplug-loud", **known)
        assert added.returncode == 0, added.stderr
        assert "plugin loud" in added.stdout
        assert "All that is trainable, loudly." in added.stdout
        assert (tmp_path / "sftplug_loud-1.10.dist-info").is_dir()
        assert "1.10" in sftplug("search", "masks", **known).stdout.split("Masks, loudly.")[1].split("\n")[0]
        none = sftplug("add", "sftplug-quiet", **known)
        assert none.returncode == 2
        assert (
            "sftplug-quiet is installed, and is no plugin: it has no entry point in the group `sftplug`" in none.stderr
        )
        missing = sftplug("add", "sftplug-nowhere", **known)
        assert missing.returncode == 2
        assert "pip has not installed 'sftplug-nowhere' (exit code 1): what it says stands above." in missing.stderr


def test_both_are_functions_of_python_too(tmp_path, monkeypatch):
    there = {"PIP_TARGET": str(tmp_path), "PIP_NO_DEPS": "1"}
    with serving(pages(JSON)) as (address, _):
        for name, value in environment(address, **there).items():
            monkeypatch.setenv(name, value)
        monkeypatch.syspath_prepend(str(tmp_path))
        (found,) = search_plugins("masks")
        assert (found.name, found.version, found.fits("0.1.0")) == ("sftplug-loud", "1.10", True)
        assert add_plugin("sftplug-loud==1.0") == ["loud"]
        assert (tmp_path / "sftplug_loud-1.0.dist-info").is_dir()
        with pytest.raises(PluginError, match="names no package"):
            add_plugin("two words")


def test_a_classifier_counts_as_the_keyword_does_where_an_index_takes_it():
    file, _, told = wheel("sftplug-marked", "1.0", plugin=False)
    files = pages(JSON)
    for name in ("sftplug-loud", "sftplug-far", "sftplug-quiet"):
        files[f"/simple/{name}/"] = _page(JSON, {"name": name, "files": []}, [])
    whole = {"filename": file, "url": f"../../files/{file}", "hashes": {}, "core-metadata": True}
    files["/simple/"] = _page(JSON, {"projects": [{"name": "sftplug-marked"}]}, [])
    files["/simple/sftplug-marked/"] = _page(JSON, {"name": "sftplug-marked", "files": [whole]}, [])
    for classifier, count in (("Framework :: sftplug", 1), ("Framework :: Other", 0)):
        files[f"/files/{file}.metadata"] = ("text/plain", f"{told}Classifier: {classifier}\n".encode())
        with serving(files) as (address, _):
            assert len(search([], {"index-url": f"{address}/simple"})) == count


@pytest.mark.parametrize("name", ["--index-url=http://elsewhere", "two words", ""])
def test_what_is_no_name_is_not_handed_to_pip(name, command):
    told = command("plugins", "add", "--", name)
    assert isinstance(told.exception, PluginError)
    assert f"'{name}' names no package" in str(told.exception)


def test_where_there_is_no_pip_another_way_is_told(command, monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    told = command("plugins", "add", "sftplug-loud")
    assert "there is no pip in this environment. Install 'sftplug-loud' with what made it" in str(told.exception)
