"""What a run leaves is a folder like any other: it loads where there is no sftplug, and training goes on from it."""

import json
import re
import subprocess
import sys

import pytest

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
    assert row["input_ids"][-2] in model.generation_config.eos_token_id
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
    import torch

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
    from sftplug.data.prepare import prepare
    from sftplug.models import load_tokenizer
    from sftplug.recipe import load_recipe

    recipe = load_recipe(str(run / "recipe.yaml"), ["data.eval_fraction=0"]).recipe
    prepared = prepare(recipe, load_tokenizer(recipe)).train
    lines = (run.parent / "rows.jsonl").read_text().splitlines()
    return [
        {**json.loads(line), "input_ids": row["input_ids"], "labels": row["labels"]}
        for line, row in list(zip(lines, prepared, strict=True))[:count]
    ]


def in_memory(run):
    """Return the logits of the model as sftplug loads it."""
    import torch

    from sftplug.recipe import load_recipe
    from sftplug.run import RunDirectory
    from sftplug.ship.tuned import load_tuned

    model = load_tuned(RunDirectory(run), load_recipe(str(run / "recipe.yaml")).recipe)
    with torch.no_grad():
        return model(torch.tensor([trained_rows(run)[0]["input_ids"]])).logits.float()


@pytest.mark.parametrize("name", ["lora_run", "full_run"])
def test_the_card_s_code_loads_a_run_without_sftplug_and_a_dpo_step_follows(name, request, tmp_path):
    run = request.getfixturevalue(name)
    logits, printed = load_elsewhere(run, run, tmp_path, DPO)
    assert float((logits - in_memory(run)).abs().max()) < 1e-5
    assert "dpo 0.69" in printed


def test_the_card_s_code_puts_a_qlora_on_the_weights_that_it_was_trained_on(qlora_run, tmp_path):
    logits, _ = load_elsewhere(qlora_run, qlora_run, tmp_path)
    assert "BitsAndBytesConfig(" in code_of_card(qlora_run)
    # Some CPUs have a kernel for inference that rounds otherwise than the one that training used.
    assert float((logits - in_memory(qlora_run)).abs().max()) < 0.02


def test_the_card_s_code_loads_a_merged_model(lora_run, tmp_path, command):
    assert command("merge", lora_run, "--output", tmp_path / "merged").exit_code == 0
    logits, _ = load_elsewhere(tmp_path / "merged", lora_run, tmp_path)
    assert "peft" not in code_of_card(tmp_path / "merged")
    assert float((logits - in_memory(lora_run)).abs().max()) < 1e-4
