"""What strangers would write, at most 40 lines each, with a proof from outside that it took effect.

As plugin files of a recipe, and in CI from an installed wheel, in an environment that has no checkout
(``SFTPLUG_FRESH_PYTHON``). The adapter that is no type of PEFT, scale and bias, is `third_party/acme_scale.py`: it is
trained, merged and loaded without sftplug in `tests/ship/test_own_adapters.py`.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from conftest import TINY, rows, write_rows
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

STRANGERS = Path(__file__).parent / "strangers"
MODULES = sorted(STRANGERS.glob("beta_*.py"))
FRESH = os.environ.get("SFTPLUG_FRESH_PYTHON")
RATE = 1e-2
# PEFT asks transformers for an attribute that is about to be renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


class Desk:
    """A folder with a recipe, and the command line on it."""

    def __init__(self, folder, data):
        self.folder = folder
        write_rows(folder / "rows.jsonl", data)
        if not FRESH:
            for module in MODULES:
                shutil.copy(module, folder)
        self.recipe = {
            "plugins": ["beta_tracker"] if FRESH else [f"./{module.name}" for module in MODULES],
            "model": {"build": TINY},
            "data": {"train": {"path": "rows.jsonl", "meta": {"licence": "cc0"}}},
            "chat_template": "beta_turns",
            "quantization": "fp32",
            "adapter": {"type": "lora", "dropout": 0.0},
            "train": {"max_steps": 3, "per_device_train_batch_size": 4, "learning_rate": RATE, "logging_steps": 1},
            "output": "run",
        }

    def run(self, *command, code=0, **sections):
        """Run a command on the recipe with other `sections`; return what it printed."""
        (self.folder / "recipe.yaml").write_text(yaml.safe_dump({**self.recipe, **sections}))
        python = [FRESH or sys.executable, "-W", "ignore", "-m", "sftplug"]
        done = subprocess.run([*python, *command], cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def base(self):
        """Return the model that is trained, as transformers loads it."""
        code = (
            "import sftplug; from sftplug.model.loading import base_model_path\n"
            "print(base_model_path(sftplug.load('recipe.yaml').recipe))"
        )
        python = [FRESH or sys.executable, "-W", "ignore", "-c", code]
        done = subprocess.run(python, cwd=self.folder, capture_output=True, text=True, check=True)
        return AutoModelForCausalLM.from_pretrained(done.stdout.split()[-1], dtype=torch.float32)

    def metrics(self, name):
        """Return what was logged under a name, in order."""
        lines = map(json.loads, (self.folder / "run" / "metrics.jsonl").read_text().splitlines())
        return [line[name] for line in lines if name in line]


@pytest.fixture
def desk(tmp_path):
    """Return a function that sets up a folder."""
    return lambda data=None: Desk(tmp_path, rows(8) if data is None else data)


def test_each_is_at_most_40_lines_and_installed_as_one_distribution():
    assert len(MODULES) == 13
    for module in MODULES:
        assert len(module.read_text().splitlines()) <= 45, module.name
        assert sum(map(bool, module.read_text().splitlines())) <= 40, module.name
    names = [line.split()[0] for line in (STRANGERS / "pyproject.toml").read_text().splitlines() if line[:5] == "beta_"]
    assert names == [module.stem for module in MODULES]


# --- losses -----------------------------------------------------------------------------------------------------------

LOSSES = {
    "beta_dft": lambda nll, distance: nll * (-nll).exp(),
    "beta_kl": lambda nll, distance: nll + 0.5 * distance,
}


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_is_what_it_is_by_hand(desk, loss):
    """Of the held-out rows after training, computed from the saved adapter by transformers and PEFT alone."""
    here = desk()
    here.recipe["data"]["eval"] = {"path": "rows.jsonl"}
    chosen = {"type": loss, **({"weight": 0.5} if loss == "beta_kl" else {})}
    here.run("train", "recipe.yaml", loss=chosen)
    here.run("prepare", "recipe.yaml", "--output", "prepared", loss=chosen)
    base = here.base()
    total, count = 0.0, 0
    from datasets import load_from_disk

    with torch.no_grad():
        held_out = load_from_disk(str(here.folder / "prepared" / "eval"))
        before = [base(torch.tensor([row["input_ids"]])).logits[0].double().log_softmax(-1) for row in held_out]
        tuned = PeftModel.from_pretrained(base, here.folder / "run")
        for row, plain in zip(held_out, before, strict=True):
            after = tuned(torch.tensor([row["input_ids"]])).logits[0].double().log_softmax(-1)
            for at, label in enumerate(row["labels"][1:]):
                if label != -100:
                    distance = (plain[at].exp() * (plain[at] - after[at])).sum()
                    total, count = total + float(LOSSES[loss](-after[at][label], distance)), count + 1
    assert here.metrics("eval_loss")[-1] == pytest.approx(total / count, abs=1e-4)


# --- optimizer and schedule -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_update_is_orthogonal_and_the_rate_falls_as_the_root(desk):
    here = desk()
    chosen = {"optimizer": "beta_muon", "schedule": "beta_root", "adapter": "full"}
    saved = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 0}
    here.run("train", "recipe.yaml", **chosen, train={**here.recipe["train"], **saved, "warmup_steps": 2})
    expected = [RATE / 2, RATE, RATE * (2 / 3) ** 0.5]
    assert here.metrics("learning_rate") == pytest.approx(expected)
    base = here.base().state_dict()
    first = load_file(here.folder / "run" / "checkpoint-1" / "model.safetensors")
    moved = {name: (first[name] - base[name]).double() for name in first if name.endswith("q_proj.weight")}
    assert len(moved) == TINY["layers"]
    for update in moved.values():
        size = torch.linalg.svdvals(update) / (RATE / 2)
        assert all(0.6 < value < 1.3 for value in size[:4])  # those of the gradient itself fall off
    state = torch.load(here.folder / "run" / "checkpoint-1" / "optimizer.pt", weights_only=True)["state"].values()
    kinds = [frozenset(held) for held in state]
    assert {frozenset({"momentum"}), frozenset({"step", "exp_avg", "exp_avg_sq"})} == set(kinds)


# --- rows -------------------------------------------------------------------------------------------------------------


def test_addresses_go_and_near_copies_are_accounted_for(desk):
    asked = "Please write to {} about the invoice of last March, and say that we are sorry for the delay."
    data = [
        {
            "messages": [
                {"role": "user", "content": asked.format(who)},
                {"role": "assistant", "content": "Done, I wrote."},
            ]
        }
        for who in ("first.one@example.org", "second@example.com")
    ]
    here = desk([*data, *rows(2)])
    here.recipe["data"]["train"]["process"] = ["beta_pii", {"type": "beta_near", "similar": 0.6}]
    here.run("train", "recipe.yaml", data={**here.recipe["data"], "max_length": 512})
    text = here.run("preview", "recipe.yaml", "-n", "3", data={**here.recipe["data"], "max_length": 512})
    assert "<EMAIL>" in text
    assert "example.org" not in text
    account = json.loads((here.folder / "run" / "ledger.json").read_text())["splits"]["train"][0]
    assert (account["read"], account["kept"]) == (4, 3)
    assert account["reasons"]["beta_near"] == ["rows.jsonl:2: is nearly rows.jsonl:1"]
    if FRESH:  # commands are those of installed plugins
        assert here.run("reasons", "run") == "1: beta_near\n"


def test_trees_become_their_best_ranked_conversations(desk):
    def message(number, parent, role, rank=0):
        return {"message_id": number, "parent_id": parent, "role": role, "text": f"Text {number}.", "rank": rank}

    tree = [
        message("a", None, "prompter"),
        message("b", "a", "assistant", rank=1),
        message("c", "a", "assistant"),
        message("d", "c", "prompter"),
        message("e", "d", "assistant"),
        message("f", "b", "prompter"),
    ]
    here = desk(tree)
    here.recipe["data"]["train"]["process"] = "beta_oasst"
    here.run("prepare", "recipe.yaml", "--output", "prepared")
    text = here.run("preview", "recipe.yaml", "-n", "1")
    assert [f"Text {name}." in text for name in "abcdef"] == [True, False, True, True, True, False]


# --- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_weights_lie_on_the_grid_and_the_code_of_the_card_puts_them_there(desk):
    here = desk()
    here.run("train", "recipe.yaml", quantization="beta_grid6")
    code = (here.folder / "run" / "README.md").read_text()
    assert "part.weight.data = (part.weight.data / scale).round() * scale" in code
    merged = here.run("merge", "run", "--output", "merged")
    assert "beta_grid6" in merged
    model = here.base()
    exec((STRANGERS / "beta_grid6.py").read_text().split('"""')[1], {"model": model})
    weight = model.model.layers[0].self_attn.q_proj.weight
    assert max(len(row.unique()) for row in weight) <= 63
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        by_card = PeftModel.from_pretrained(model, here.folder / "run")(ids).logits
        plain = AutoModelForCausalLM.from_pretrained(here.folder / "merged", dtype=torch.float32)(ids).logits
    assert torch.allclose(by_card, plain, atol=1e-4)


# --- a section of its own ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_plugin_s_own_section_is_checked_obeyed_and_explained(desk):
    here = desk()
    ticket = {"number": 17, "worst_loss": 1.0}
    wrong = here.run(
        "check", "recipe.yaml", code=2, callbacks=["beta_give_up"], beta_ticket={"numbr": 1, "worst_loss": 0}
    )
    assert "beta_ticket.numbr" in wrong
    assert "Did you mean 'number'?" in wrong
    assert "beta_ticket.worst_loss" in wrong
    chosen = {"callbacks": ["beta_give_up"], "beta_ticket": ticket}
    here.run("train", "recipe.yaml", **chosen)
    assert len(here.metrics("learning_rate")) == 1  # the callback has read the section, and stopped after one update
    assert json.loads((here.folder / "run" / "ticket.json").read_text())["ticket"] == 17
    told = here.run("explain", "recipe.yaml", "beta_ticket", **chosen)
    assert "beta_ticket.number" in told


# --- what a team wants of every run -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_team_s_tracker_policy_and_exporter(desk):
    here = desk()
    here.recipe |= {
        "policies": "beta_licensed",
        "export": "beta_zip",
        "callbacks": [{"samples": {"prompts": ["What is 1 plus one?"], "max_new_tokens": 3}}],
        "evaluation": {"metrics": ["exact_match"], "max_new_tokens": 3},
    }
    here.recipe["data"]["eval"] = {"path": "rows.jsonl", "first": 2}
    unknown = {"train": {"path": "rows.jsonl"}}
    refused = here.run("train", "recipe.yaml", code=2, data=unknown)
    assert "policy 'beta_licensed': `data.train[0]` needs a licence: `meta: {licence: …}`" in refused
    here.run("train", "recipe.yaml")
    run = json.loads((here.folder / "run" / "run.json").read_text())
    with sqlite3.connect(here.folder / "runs.db") as db:
        noted = db.execute("SELECT run, what, name, value FROM notes").fetchall()
    assert {line[0] for line in noted} == {run["id"]}
    kept = {(what, name): json.loads(value) for _, what, name, value in noted}
    assert kept["recipe", "adapter"]["type"] == "lora"
    assert kept["metrics", "eval_loss"] == pytest.approx(here.metrics("eval_loss")[-1])
    assert "eval_exact_match" in {name for what, name in kept if what == "metrics"}
    assert kept["result", "loss"] == pytest.approx(sum(here.metrics("loss")) / 3, rel=1e-3)
    assert "What is 1 plus one?" in {name for what, name in kept if what == "samples"}
    (archive,) = (here.folder / "run" / "exports").glob("*.zip")
    with zipfile.ZipFile(archive) as packed:
        assert (
            packed.read("adapter_model.safetensors") == (here.folder / "run" / "adapter_model.safetensors").read_bytes()
        )
        assert "run.json" not in packed.namelist()
