"""Plugins that a stranger wrote, of at most 15 lines each: from an installed wheel, and as files of a recipe.

In CI the wheel of sftplug and the stranger's wheel are installed into an environment of their own, and these tests
run once more from there (``SFTPLUG_FRESH_PYTHON``).
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

STRANGER = Path(__file__).parent / "third_party"
MODULES = sorted(STRANGER.glob("acme_*.py"))
CHECK = """
import json, sys
from datasets import load_from_disk
from transformers import AutoTokenizer
prepared, run = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(run)
rows = load_from_disk(prepared + "/train")
trained = [[token for token, label in zip(row["input_ids"], row["labels"]) if label != -100] for row in rows]
print(json.dumps([tokenizer.convert_ids_to_tokens(row) for row in trained]))
import torch
print(torch.load(run + "/checkpoint-2/optimizer.pt")["param_groups"][0]["betas"])
"""


def sftplug(python, folder, *arguments):
    result = subprocess.run(
        [python, "-m", "sftplug", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def evaluated(python, folder):
    """Return what the gate of the trained model is, where sftplug loads it."""
    code = "import sftplug; print(sftplug.open_run('run').conversation().model.get_base_model().model.layers[0].mlp)"
    return subprocess.run([python, "-c", code], cwd=folder, capture_output=True, text=True, check=True).stdout


def prove(python, folder):
    """Prepare and train the stranger's recipe, and prove from what comes out that each plugin took effect."""
    sftplug(python, folder, "prepare", "recipe.yaml", "--output", "prepared")
    said = sftplug(python, folder, "train", "recipe.yaml", "--output", "run")
    labels = subprocess.run(
        [python, "-W", "ignore", "-c", CHECK, "prepared", "run"], cwd=folder, capture_output=True, text=True, check=True
    )
    *_, ends, betas = labels.stdout.splitlines()
    # The processor made dialogues of messages, the format read them, and the mask left nothing but the ends of turns.
    assert json.loads(ends) == [["<|im_end|>"], ["<|im_end|>"] * 2]
    account = json.loads((folder / "run" / "ledger.json").read_text())["splits"]["train"][0]
    done = {"processor": "threads", "read": 5, "changed": 2, "made": 0, "joined": 3, "dropped": 0, "out": 2}
    assert (account["read"], account["kept"], account["processed"]) == (5, 2, [done])
    # The optimizer has the option that the recipe gives it, and the schedule halves the rate.
    assert betas == "(0.8, 0.999)"
    logged = map(json.loads, (folder / "run" / "metrics.jsonl").read_text().splitlines())
    assert [line["learning_rate"] for line in logged if "learning_rate" in line] == [1e-2, 5e-3]
    # The adapter trained rescaling vectors, on the modules that it names.
    adapter = json.loads((folder / "run" / "adapter_config.json").read_text())
    assert (adapter["peft_type"], set(adapter["target_modules"])) == ("IA3", {"q_proj", "v_proj"})
    assert (folder / "run" / "adapter_model.safetensors").stat().st_size > 500
    assert "acme_ia3 on int8_attention" in said
    # The patch changed what the model computes, and the code of the card makes the same of a plain one.
    (patch,) = json.loads((folder / "run" / "run.json").read_text())["patches"]
    assert (patch["type"], patch["changes_logits"]) == ("relu_gate", True)
    assert patch["difference"] < 0.05
    assert "m.act_fn = torch.nn.ReLU()" in (folder / "run" / "README.md").read_text()
    assert "ReLU" in evaluated(python, folder)
    # The metric found both replies brief.
    *_, measured = map(json.loads, (folder / "run" / "metrics.jsonl").read_text().splitlines())
    assert (measured["eval_brief"], measured["eval_brief_rows"]) == (1.0, 2)
    used = {plugin["name"]: plugin for plugin in json.loads((folder / "run" / "plugins.json").read_text())}
    # The exporter has listed what may leave.
    assert "adapter_model.safetensors" in (folder / "run" / "exports" / "listing.txt").read_text().splitlines()
    assert {module.stem for module in MODULES} - {"acme_scale", "acme_head"} <= set(used)
    # The policy lets nobody train at a rate that it does not like.
    fast = [python, "-m", "sftplug", "check", "recipe.yaml", "train.learning_rate=0.5"]
    refused = subprocess.run(fast, cwd=folder, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "policy 'cautious': ACME is cautious: 0.02 is the largest rate" in refused.stderr
    return used


HEADED = ("patches=[]", "loss={type: capped, most: 5, head: plain}", "evaluation.metrics=[]", "export=[]")
"""The patch of the recipe changes logits, which a head that makes its own would pass by."""


def prove_head(python, folder):
    """Train with the stranger's head, which has the losses of all logits."""
    runs = {"own": HEADED, "full": (HEADED[0], HEADED[1].replace("plain", "full"), *HEADED[2:])}
    for name, overrides in runs.items():
        sftplug(python, folder, "train", "recipe.yaml", "--output", name, *overrides)
    heads = [json.loads((folder / name / "run.json").read_text())["head"]["name"] for name in runs]
    assert heads == ["plain", "full"]
    lines = [map(json.loads, (folder / name / "metrics.jsonl").read_text().splitlines()) for name in runs]
    own, full = ([line["loss"] for line in found if "loss" in line] for found in lines)
    assert len(own) == 2
    assert own == pytest.approx(full, rel=1e-5)


SCALED = ("adapter=acme_scale", "quantization=fp32", "evaluation.metrics=[]")
LONGER = {"acme_scale.py": 40}
"""An adapter that is no type of PEFT is trained, loaded, merged and loaded without sftplug by its own code."""


def test_each_module_is_at_most_15_lines():
    assert len(MODULES) == 14
    for module in MODULES:
        assert sum(map(bool, module.read_text().splitlines())) <= LONGER.get(module.name, 15), module.name


def test_as_files_of_a_recipe(tmp_path):
    for file in [*MODULES, *STRANGER.glob("*.jsonl")]:
        shutil.copy(file, tmp_path)
    recipe = yaml.safe_load((STRANGER / "recipe.yaml").read_text())
    recipe["plugins"] = [f"./{module.name}" for module in MODULES]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    used = prove(sys.executable, tmp_path)
    assert {used[module.stem]["distribution"] for module in MODULES} == {"file"}
    prove_head(sys.executable, tmp_path)


@pytest.mark.skipif(
    "SFTPLUG_FRESH_PYTHON" not in os.environ, reason="needs an environment with both wheels: see .ci/run"
)
def test_as_an_installed_wheel(tmp_path):
    for name in ("recipe.yaml", "rows.jsonl", "trees.jsonl"):
        shutil.copy(STRANGER / name, tmp_path)
    python = os.environ["SFTPLUG_FRESH_PYTHON"]
    used = prove(python, tmp_path)
    assert used["acme_format"]["distribution"] == "sftplug-acme"
    assert used["acme_format"]["version"] == "1.2.3"
    said = sftplug(python, tmp_path, "train", "recipe.yaml", "--output", "scale", *SCALED)
    assert "acme_scale on fp32" in said
    prove_head(python, tmp_path)
    merged = sftplug(python, tmp_path, "merge", "scale", "--output", "merged")
    assert "merged acme_scale onto the base in float32" in merged
    listed = sftplug(python, tmp_path, "plugins")
    assert "sftplug-acme" in listed
    where = [python, "-c", "import sftplug; print(sftplug.__file__)"]
    installed = subprocess.run(where, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "site-packages" in installed
    assert "quickstart" in sftplug(python, tmp_path, "recipes")
