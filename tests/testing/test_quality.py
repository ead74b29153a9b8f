"""A tier is worked out from what the kit has found: of this code, of all that is offered, with these versions."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sftplug.cli import app
from sftplug.plugin.kinds import NOUNS
from sftplug.plugin.manager import load_plugins
from sftplug.plugin.quality import CONTRACTS, Found, file_of, quality_of, write_found
from sftplug.plugin.registry import build_registry
from sftplug.testing import __all__ as checks
from sftplug.testing.proofs import CHECK_OF

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The package of a policy as `plugins new` writes it, in a folder that Python finds, as an editable install is."""
    parent = tmp_path_factory.mktemp("packages")
    made = CliRunner().invoke(app, ["plugins", "new", "policy", "own-rule", "--dir", str(parent)])
    assert made.exit_code == 0, made.output
    folder = parent / "own-rule"
    info = folder / "sftplug_own_rule-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sftplug-own-rule\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[sftplug]\nown_rule = own_rule\n")
    return folder


def run(folder, *arguments):
    """Run the command line where Python finds a package."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "sftplug", "plugins", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_the_kit_writes_what_it_found_and_the_tier_is_worked_out_of_that(package):
    assert "untested: the kit has not run on it" in _quality(package)
    done = run(package, "test", package)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "own_rule: lawful: " in done.stdout
    file = package / "own_rule.quality.json"
    known = json.loads(file.read_text())
    assert set(known["laws"]) == {"policy own_rule"}
    assert {"answers_for_every_command", "says_the_same_again", "is_named", "survives_yaml"} <= set(
        known["laws"]["policy own_rule"]
    )
    assert (known["passed"], known["failed"], known["contract"]) == (2, 0, CONTRACTS[-1])
    assert (known["versions"]["sftplug"], known.get("tier")) == ("0.1.0", None)
    laws = len(known["laws"]["policy own_rule"])
    lawful = f"lawful: {laws} laws kept by 1 of 1 components, 2 of 2 tests passed, contract 0.1.0"
    assert lawful in _quality(package)
    listed = run(package)
    assert f"lawful: {laws} laws kept by 1 of 1 components, 2 of 2" in listed.stdout
    assert max(map(len, listed.stdout.splitlines())) < 230
    shown = run(package, "show", "own_rule").stdout
    assert "quality       lawful" in shown
    assert "policy own_rule: answers_for_every_command, " in shown
    # Other versions now than then.
    file.write_text(json.dumps({**known, "versions": {**known["versions"], "trl": "1.2.3"}, "contract": "0.0.1"}))
    told = _quality(package)
    assert "tested with trl 1.2.3 (here " in told
    assert "contract 0.0.1 is not one that this sftplug keeps: 0.1.0" in told
    # Other code than then.
    file.write_text(json.dumps(known))
    module = package / "own_rule.py"
    code = module.read_text()
    module.write_text(code + "\n# a line more\n")
    assert "stale: the kit has run on other code than this" in _quality(package)
    module.write_text(code)
    assert lawful in _quality(package)


@pytest.mark.slow
def test_what_was_not_tried_or_has_failed_is_no_lawful_plugin(package, tmp_path):
    folder = shutil.copytree(package, tmp_path / "own-rule")
    test = folder / "tests" / "test_own_rule.py"
    text = test.read_text()
    test.write_text(text.replace("    check_policy(OwnRule)\n", "    assert check_policy\n"))
    done = run(folder, "test", folder)
    assert done.returncode == 1
    assert "own_rule: partly: 0 laws kept by 0 of 1 components, 2 of 2 tests passed" in done.stdout
    assert "no laws tried on policy own_rule" in done.stdout
    test.write_text(text.replace("OwnRule(most=3)", "OwnRule(most=30)", 1))
    done = run(folder, "test", folder)
    assert done.returncode == 1
    assert "1 of 1 components, 1 of 2 tests passed" in done.stdout
    assert "own_rule: partly: " in done.stdout
    shutil.rmtree(folder / "tests")
    done = run(folder, "test", folder)
    assert done.returncode == 2
    assert "has no tests" in done.stderr
    elsewhere = run(package, "test", shutil.copytree(package, tmp_path / "copy"))
    assert elsewhere.returncode == 2
    assert f"is installed from {package / 'own_rule.py'}. Run: pip install -e {tmp_path / 'copy'}" in elsewhere.stderr


def _quality(folder):
    done = run(folder, "show", "own_rule")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_file_that_nobody_can_read_is_no_tier(tmp_path, monkeypatch):
    (tmp_path / "acme_odd.py").write_text("import sftplug\n@sftplug.hookimpl\ndef sftplug_run_finished(): pass\n")
    info = tmp_path / "sftplug_odd-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sftplug-odd\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sftplug]\nodd = acme_odd\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = build_registry(load_plugins(only=["odd"]))
    plugin = registry.plugins.loaded["odd"]
    (tmp_path / "acme_odd.quality.json").write_text('{"tier": "lawful"}')
    assert quality_of(plugin, registry).tier == "untested"
    assert "cannot be read" in quality_of(plugin, registry).text
    # It offers nothing, and its tests have passed.
    found = Found(plugin.sha256, {}, 1, 0, 2, "0.1.0", {}, "2026-11-30")
    assert write_found(plugin, found) == file_of(plugin)
    quality = quality_of(plugin, registry)
    assert (quality.tier, quality.notes) == ("lawful", ("2 tests were skipped",))
    assert quality_of(load_plugins(only=["journal"]).loaded["journal"], registry) is None


def test_the_contracts_are_those_whose_plugins_are_kept():
    frozen = [folder.name for folder in (ROOT / "tests" / "frozen").iterdir() if folder.name[0].isdigit()]
    assert list(CONTRACTS) == sorted(frozen)


def test_every_kind_has_a_check_by_whose_laws_it_goes():
    assert set(CHECK_OF) == {*NOUNS.values(), "command"}
    assert set(CHECK_OF.values()) <= set(checks)
