"""What a run leaves is a folder like any other: it loads where there is no sftplug, and training resumes from it."""

import json
import re
import subprocess
import sys

import pytest
import torch
from conftest import TINY, rows, train_run, write_rows

import sftplug
from sftplug import RunDirectory, RunError
from sftplug.run.directory import RunState
from sftplug.ship.tuned import open_finished

BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0].startswith("sftplug"):
            raise ImportError(f"{name} is not to be had here")

sys.meta_path.insert(0, Blocker())
"""

CHECK = """
import json, torch
from datasets import Dataset
from trl import DPOConfig, DPOTrainer

trained = json.loads(sys.argv[1])
for row in trained:
    prompt = tokenizer.apply_chat_template(row["messages"][:1], add_generation_prompt=True)["input_ids"]
    assert prompt == row["input_ids"][: len(prompt)]
    assert row["labels"][len(prompt) - 1] == -100 != row["labels"][len(prompt)]
    assert [label for label in row["labels"] if label != -100][-1] in model.generation_config.eos_token_id
assert model.generation_config.pad_token_id == tokenizer.pad_token_id is not None
with torch.no_grad():
    logits = model.eval()(torch.tensor([trained[0]["input_ids"]])).logits.float()
torch.save(logits, sys.argv[2])
"""

DPO = """
pairs = [
    {
        "prompt": row["messages"][:1],
        "chosen": row["messages"][1:],
        "rejected": [{"role": "assistant", "content": "I do not know."}],
    }
    for row in trained
]
before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
arguments = DPOConfig(
    "dpo", max_steps=1, per_device_train_batch_size=2, use_cpu=True, bf16=False, report_to="none",
    learning_rate=1e-2, logging_steps=1, save_strategy="no", disable_tqdm=True,
)
trainer = DPOTrainer(model=model, args=arguments, train_dataset=Dataset.from_list(pairs), processing_class=tokenizer)
trainer.train()
loss = next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
assert abs(loss - 0.6931) < 1e-3, loss  # log 2: the model is its own reference at the first step
after = dict(trainer.model.named_parameters())
assert any(not torch.equal(before[name], after[name]) for name in before)
print("dpo", loss)
"""


def code_of_card(folder):
    return re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1]


def load_elsewhere(folder, run, tmp_path, more=""):
    """Run the code of the card in a process that cannot import sftplug, and check what it loads; return its logits."""
    script = tmp_path / "load.py"
    code = code_of_card(folder)
    if more:  # training goes on: PEFT loads an adapter frozen unless it is told otherwise
        code = re.sub(r"PeftModelForCausalLM\.from_pretrained\(folder", r"\g<0>, is_trainable=True", code)
    script.write_text(BLOCKER + code + CHECK + more)
    result = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), json.dumps(trained_rows(run)), str(tmp_path / "logits.pt")],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return torch.load(tmp_path / "logits.pt"), result.stdout


def trained_rows(run, count=4):
    """Return rows as they were trained, with the messages that they were made of."""
    prepared = sftplug.prepare(sftplug.load(run / "recipe.yaml", "data.eval_fraction=0")).train
    lines = (run.parent / "rows.jsonl").read_text().splitlines()
    return [
        {**json.loads(line), "input_ids": row["input_ids"], "labels": row["labels"]}
        for line, row in list(zip(lines, prepared, strict=True))[:count]
    ]


def in_memory(run):
    """Return the logits of the model as sftplug loads it."""
    from sftplug.recipe import load_recipe
    from sftplug.run import RunDirectory
    from sftplug.ship.tuned import load_tuned

    model = load_tuned(RunDirectory(run), load_recipe(str(run / "recipe.yaml")).recipe)
    with torch.no_grad():
        return model(torch.tensor([trained_rows(run)[0]["input_ids"]])).logits.float()


@pytest.mark.parametrize("name", ["lora_run", "full_run"])
def test_the_card_s_code_loads_a_run_without_sftplug_and_a_dpo_step_follows(name, request, tmp_path):
    run = request.getfixturevalue(name)
    loaded, printed = load_elsewhere(run, run, tmp_path, DPO)
    assert float((loaded - in_memory(run)).abs().max()) < 1e-5
    assert "dpo 0.69" in printed


def test_the_card_s_code_puts_a_qlora_on_the_weights_that_it_was_trained_on(qlora_run, tmp_path):
    loaded, _ = load_elsewhere(qlora_run, qlora_run, tmp_path)
    assert "BitsAndBytesConfig(" in code_of_card(qlora_run)
    assert torch.equal(loaded, in_memory(qlora_run))


def test_the_card_s_code_loads_a_merged_model(lora_run, tmp_path, command):
    assert command("merge", lora_run, "--output", tmp_path / "merged").exit_code == 0
    loaded, _ = load_elsewhere(tmp_path / "merged", lora_run, tmp_path)
    assert "peft" not in code_of_card(tmp_path / "merged")
    assert float((loaded - in_memory(lora_run)).abs().max()) < 1e-4


# --- new tokens -------------------------------------------------------------------------------------------------------

NEW = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]


@pytest.fixture(scope="session")
def untied(tmp_path_factory):
    """A model whose head has weights of its own."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from sftplug.model.loading import base_model_path
    from sftplug.recipe import load_recipe

    folder = tmp_path_factory.mktemp("untied")
    write_rows(folder / "rows.jsonl", rows(2))
    recipe = {"model": {"build": TINY}, "data": {"train": {"path": "rows.jsonl", "format": "messages"}}}
    (folder / "r.yaml").write_text(json.dumps(recipe))
    tied = base_model_path(load_recipe(str(folder / "r.yaml")).recipe)
    config = AutoModelForCausalLM.from_pretrained(tied).config
    config.tie_word_embeddings = False
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "model")
    AutoTokenizer.from_pretrained(tied).save_pretrained(folder / "model")
    return folder / "model"


LIVE = """
import torch
from sftplug import hookimpl
from transformers import TrainerCallback

class Live(TrainerCallback):
    def on_train_end(self, args, state, control, model=None, **kwargs):
        with torch.no_grad():
            logits = model.eval()(torch.arange(1000, 1027)[None]).logits
        torch.save(logits.float(), args.output_dir + ".live.pt")

@hookimpl
def sftplug_trainer_created(recipe, trainer):
    trainer.add_callback(Live())
"""
"""A plugin that keeps what the model says in the process that trained it, of the new tokens and some others."""

RELOAD = """
import os, sys, torch

for folder in sys.argv[1:]:
    os.chdir(folder)
    exec(open("../" + os.path.basename(folder) + ".py").read(), found := {})
    model = found["model"].eval()
    with torch.no_grad():
        logits = model(torch.arange(1000, 1027)[None]).logits
    torch.save((logits.float(), model.get_input_embeddings()(torch.arange(1027)).detach().float()), folder + ".new.pt")
"""
COMBINATIONS = [
    (head, adapter, numbers)
    for head in ("tied", "untied")
    for adapter, numbers in (("lora", "fp32"), ("lora", "bf16"), ("qlora", "nf4"), ("lora", "int8"), ("full", "fp32"))
]


@pytest.fixture(scope="session")
def with_new_tokens(untied, tmp_path_factory):
    """Runs with new tokens, by combination; each was loaded again in a process that has no sftplug."""
    folder = tmp_path_factory.mktemp("new")
    (folder / "live.py").write_text(LIVE)
    runs = {}
    for head, adapter, numbers in COMBINATIONS:
        base = {"build": TINY} if head == "tied" else {"name_or_path": str(untied)}
        sections = {"chat_template": "llama3", "adapter": adapter, "quantization": numbers, "plugins": "./live.py"}
        name = f"{head}-{adapter}-{numbers}"
        runs[head, adapter, numbers] = run = train_run(folder, name, model={**base, "add_tokens": NEW}, **sections)
        (folder / f"{name}.py").write_text(code_of_card(run))
    script = folder / "reload.py"
    script.write_text(BLOCKER + RELOAD)
    command = [sys.executable, "-W", "ignore", str(script), *map(str, runs.values())]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return runs


@pytest.mark.parametrize("combination", COMBINATIONS, ids="-".join)
def test_new_tokens_are_trained_saved_and_reloaded_exactly(combination, with_new_tokens):
    run = with_new_tokens[combination]
    reloaded, after = torch.load(f"{run}.new.pt")
    before = grown_base(run)
    assert len(before) == len(after) == 1027
    assert not torch.equal(before[-3:], after[-3:])
    assert torch.allclose(before[-1], before[:-3].mean(0), atol=1e-2)
    assert torch.equal(before[:-3], after[:-3]) == (combination[1] != "full")
    assert torch.equal(reloaded, torch.load(f"{run}.live.pt"))


def grown_base(run):
    """Return the embeddings as training found them."""
    from sftplug.model.loading import load_base
    from sftplug.recipe import load_recipe

    return load_base(load_recipe(str(run / "recipe.yaml")).recipe).get_input_embeddings().weight.detach().float()


def test_new_tokens_that_nothing_would_train_are_refused(recipe_file, command):
    model = {"build": TINY, "add_tokens": NEW}
    error = command("check", recipe_file(model=model, adapter={"type": "freeze", "train": ["*.norm.weight"]})).exception
    assert "the adapter 'freeze' does not train the rows of the new tokens" in str(error)
    error = command("train", recipe_file(model={**model, "add_tokens": ["<|im_end|>"]})).exception
    assert "model.add_tokens: the tokenizer has '<|im_end|>' already, with the id 3." in str(error)
    error = command("check", recipe_file(chat_template="llama3")).exception
    assert 'or add them: `model.add_tokens: ["<|start_header_id|>", "<|end_header_id|>"' in str(error)


@pytest.mark.parametrize(
    ("state", "advice"),
    [
        ("failed", "it is failed: ValueError: why. Once that is fixed"),
        ("interrupted", "it is interrupted: ValueError: why. `sftplug train` resumes it."),
    ],
)
def test_what_helps_an_unfinished_run_depends_on_how_it_ended(tmp_path, state, advice):
    directory = RunDirectory(tmp_path)
    directory.write_state(RunState(state, reason="ValueError: why."))
    with pytest.raises(RunError, match=re.escape(advice)):
        open_finished(tmp_path)
