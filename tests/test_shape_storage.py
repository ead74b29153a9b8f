"""The promise that whole files and folders, locks and full disks are dealt with in one place each."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
OWN = {"FileLock", "SoftFileLock", "fsync", "ENOSPC", "EDQUOT", "disk_usage"}
"""What only the storage room says itself."""
TOLD = {"run/failure.py": {"disk_usage"}}
"""Where it is said for a message, and nothing depends on it."""


def test_locks_and_full_disks_are_dealt_with_in_one_room():
    around = []
    for file in sorted((ROOT / "sftplug").rglob("*.py")):
        name = file.relative_to(ROOT / "sftplug").as_posix()
        if name.startswith("storage/"):
            continue
        nodes = list(ast.walk(ast.parse(file.read_text())))
        names = {getattr(node, "attr", getattr(node, "id", None)) for node in nodes}
        names |= {node.name for node in nodes if isinstance(node, ast.alias)}
        around += [(name, word) for word in sorted(names & OWN - TOLD.get(name, set()))]
    assert around == []


def test_models_does_not_know_the_store_of_rows():
    assert "sftplug.data.store" not in (ROOT / "sftplug" / "model" / "loading.py").read_text()
