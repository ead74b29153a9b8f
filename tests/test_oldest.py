"""What `make oldest` shows, beside the golden labels, on the oldest libraries that are supported."""

import json
import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]


def test_the_oldest_versions_are_those_that_the_package_allows():
    lines = (ROOT / "constraints-oldest.txt").read_text().splitlines()
    pinned = dict(line.lower().split("==") for line in lines if not line.startswith("#"))
    assert pinned.pop("torch") == re.search(r"^torch==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]
    wanted = map(Requirement, tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])
    bounds = {
        required.name: Version(bound.version)
        for required in wanted
        for bound in required.specifier
        if bound.operator == ">=" and required.name != "torch"
    }
    assert {name: Version(version) for name, version in pinned.items()} == bounds


def test_a_recipe_is_trained_from_the_command_line(lora_run, qlora_run):
    for run, weights in ((lora_run, "fp32"), (qlora_run, "nf4")):
        record = json.loads((run / "run.json").read_text())
        assert record["state"] == "finished"
        lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        losses = [line["loss"] for line in lines if "loss" in line]
        assert losses[-1] < losses[0] - 0.1, weights
        assert (run / "adapter_model.safetensors").is_file()
