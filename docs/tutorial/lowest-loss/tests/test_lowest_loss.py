import json
from pathlib import Path

import pytest
from sftplug.testing import check_command

from lowest_loss import lowest


def test_it_keeps_the_laws_of_commands() -> None:
    check_command("lowest-loss", lowest)


def test_the_best_run_comes_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, losses in {"a": [2.0, 1.5], "b": [1.25, 3.0], "c": []}.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "run.json").write_text(json.dumps({"format": 1, "state": "finished"}))
        (folder / "metrics.jsonl").write_text("".join(f'{{"loss": {loss}}}\n' for loss in losses))
    lowest([tmp_path / name for name in "cab"])
    assert capsys.readouterr().out.splitlines() == [
        f"1.2500  {tmp_path / 'b'}",
        f"1.5000  {tmp_path / 'a'}",
        f"inf  {tmp_path / 'c'}",
    ]
