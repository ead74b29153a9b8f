from pathlib import Path

import pytest
from sftplug import DataError
from sftplug.testing import check_source

from frozen_source import FrozenSource

NOTES = Path(__file__).parents[1] / "notes"


def test_it_keeps_the_laws_of_sources() -> None:
    check_source(FrozenSource, folder=str(NOTES))


def test_each_file_is_a_row() -> None:
    rows = list(FrozenSource(folder=str(NOTES)).rows())
    assert [Path(row.origin).name for row in rows] == ["bees.md", "crabs.md", "spiders.md"]
    assert rows[0].data["text"].startswith("# Bees")


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "old.md").write_bytes("Käfer".encode("latin-1"))
    with pytest.raises(DataError, match=r"old\.md: is not UTF-8 text"):
        list(FrozenSource(folder=str(tmp_path)).rows())
