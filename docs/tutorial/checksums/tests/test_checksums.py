import hashlib
from pathlib import Path

import sftplug
from sftplug.testing import check_exporter

from checksums import Checksums


def test_it_keeps_the_laws_of_exporters() -> None:
    check_exporter(Checksums)


def test_every_file_is_listed_with_its_sum(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    model = sftplug.FinishedModel(tmp_path, ("config.json",), False, None, None)
    Checksums().export(model, tmp_path / "model.sha256")
    assert (tmp_path / "model.sha256").read_text() == f"{hashlib.sha256(b'{}').hexdigest()}  config.json\n"
