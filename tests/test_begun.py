"""Runs that 0.1.0 began and that were killed are resumed by today's code, and end as 0.1.0 would have ended them.

``tests/frozen/begun`` holds them, with what made them. Arithmetic differs in the last bits between processors. So what
0.1.0 had at the checkpoint is compared with what this machine has there: where these are the same bits, so must the
ends be as those of a run of today that nobody disturbed; from what 0.1.0 made of it, losses may differ by a thousandth.
"""

import hashlib
import json
import shutil
import tarfile
from pathlib import Path

import pytest

import sftplug

FROZEN = Path(__file__).parent / "frozen"
BEGUN = FROZEN / "begun"
KNOWN = json.loads((BEGUN / "figures.json").read_text())["runs"]
WEIGHTS = ("adapter_model.safetensors", "model.safetensors")
LEFT_OPEN = {
    "lora": ["train.learning_rate=2e-5", "train.lr_scheduler_type=linear", "train.warmup_steps=0"],
}
"""What 0.1.0 chose where the recipe leaves it open: TRL's defaults."""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The project with its killed runs, in another place than that in which it was begun."""
    folder = tmp_path_factory.mktemp("begun") / "project"
    shutil.copytree(BEGUN, folder)
    for file in (FROZEN / "0.1.0" / "acme").glob("*.py"):
        shutil.copy(file, folder)
    with tarfile.open(folder / "runs.tar.xz") as packed:
        # Python 3.11 knows filters from 3.11.4 on.
        packed.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return folder


def figures(run):
    """Return losses by step, and the hash of the weights, as the script has kept them of 0.1.0."""
    lines = list(sftplug.RunDirectory.open(run).metrics())
    found = {name: {str(line["step"]): line[name] for line in lines if name in line} for name in ("loss", "eval_loss")}
    return {"losses": found["loss"], "eval_losses": found["eval_loss"], "sha256": sha256(run)}


def sha256(folder):
    (file,) = [folder / name for name in WEIGHTS if (folder / name).is_file()]
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", KNOWN)
def test_a_run_that_0_1_0_began_ends_as_0_1_0_would_have_ended_it(name, project):
    recipe, output, left_open = project / f"{name}.yaml", project / name, LEFT_OPEN.get(name, [])
    undisturbed = project / "whole" / name
    sftplug.train(sftplug.load(recipe, f"output={undisturbed}", "train.save_total_limit=0", *left_open), show=False)
    same_bits = sha256(undisturbed / "checkpoint-4") == sha256(output / "checkpoint-4")
    sftplug.train(sftplug.load(recipe, f"output={output}"), resume=True, show=False)
    assert sftplug.RunDirectory.open(output).state().attempts[-1]["from_step"] == 4
    resumed, known = figures(output), KNOWN[name]
    if same_bits:
        assert resumed == figures(undisturbed)
    for losses in ("losses", "eval_losses"):
        assert resumed[losses] == pytest.approx(known[losses], rel=1e-3), losses
        assert len(known["losses"]) == 12
