"""sftplug from Python: every name that the documentation shows, as a program in a process of its own calls it."""

import copy
import functools
import inspect
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import types
import warnings
from importlib.resources import files
from pathlib import Path
from typing import Literal

import pytest
import torch
import yaml
from conftest import SHORT, TINY, rows, write_rows
from twins import make_model

import sftplug
from sftplug_tiny.builder import build_tokenizer

ROOT = Path(__file__).parents[1]


def given(folder, **sections):
    """Return a small recipe as a dict."""
    write_rows(folder / "rows.jsonl", rows())
    return {
        "model": {"build": TINY},
        "data": {"train": {"path": str(folder / "rows.jsonl")}, "eval_fraction": 0.25, "max_length": 256},
        "chat_template": "chatml",
        "quantization": "fp32",
        "adapter": "lora",
        "train": {**SHORT, "max_steps": 4},
        "output": str(folder / "out"),
        **sections,
    }


class Half(sftplug.Masking):
    """Half of everything."""

    type: Literal["half"] = "half"
    weight: float = 0.5
    """The weight."""

    def weights(self, tokens):
        return tokens.trainable * self.weight


# --- as documented ----------------------------------------------------------------------------------------------------


def shown(name):
    """Return the code that the documentation shows under `name`."""
    text = (ROOT / "docs" / "python.md").read_text()
    return text.split(f"<!-- {name} -->\n```python\n")[1].split("```")[0]


LOOK = """
import json
fields = {len(getattr(encoded, name)) for name in ("input_ids", "labels", "weights", "roles", "parts")}
trained = rows.tokenizer.decode([label for label in encoded.labels if label != -100])
counts = [len(rows.train), len(rows.eval)]
print(json.dumps({"rows": counts, "trained": trained, "fields": [*fields], "text": encoded.text}))
"""
"""What is looked at when the program is over."""
CHATML = (files("sftplug_templates") / "chatml.jinja").read_text()


def test_the_story_of_the_documentation_runs_in_a_process_of_its_own(tmp_path):
    """As written: a tiny model lies where the documentation names one of the Hub, with a chat template as that has."""
    (tmp_path / "my.yaml").write_text(yaml.safe_dump({**given(tmp_path), "output": "runs/my"}))
    place, own = tmp_path / "Qwen" / "Qwen3-0.6B", with_template(build_tokenizer(1024), CHATML)
    make_model("llama", len(own)).save_pretrained(place)
    own.save_pretrained(place)
    ran = subprocess.run(
        [sys.executable, "-c", shown("the whole story") + LOOK],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "merged" / "model.safetensors").is_file()
    assert "<html" in (tmp_path / "report.html").read_text()
    seen = json.loads(ran.stdout.splitlines()[-1])
    assert sum(seen["rows"]) == len(rows())
    assert 0 < seen["rows"][1] < len(rows()) / 2
    assert seen["trained"] == "Iris.<|im_end|>"
    assert seen["fields"] == [len(own(seen["text"]).input_ids)]


def test_importing_sftplug_is_light_and_lists_what_is_imported_later():
    code = (
        "import sys, sftplug\n"
        "assert 'train' in dir(sftplug) and 'sftplug.api' not in sys.modules\n"
        "sftplug.load\n"
        "print([name for name in ('torch', 'transformers', 'numpy', 'datasets') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


# --- recipes ----------------------------------------------------------------------------------------------------------


def test_a_dict_is_a_recipe_whose_values_come_from_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = sftplug.load(given(tmp_path, data={"train": {"path": "rows.jsonl"}}), "adapter.r=32")
    assert recipe.recipe.data.train[0].source.path == str(tmp_path / "rows.jsonl")
    assert recipe.recipe.adapter.r == 32
    origins = recipe.tree.origins
    assert origins["adapter", "r"] == origins["data", "train", 0, "source", "path"] == "python"


def test_all_problems_of_a_dict_are_told_at_once(tmp_path):
    wrong = given(tmp_path, adapter="lorra", train={"learning_rat": 1})
    with pytest.raises(sftplug.RecipeError) as caught:
        sftplug.load(wrong)
    assert {problem.path for problem in caught.value.problems} == {"adapter", "train.learning_rat"}
    assert sftplug.check(wrong) == list(map(str, caught.value.problems))
    with pytest.raises(sftplug.RecipeError, match=r"masking \(python\): must be plain data or a component, not object"):
        sftplug.load(given(tmp_path, masking=object()))
    with pytest.raises(sftplug.RecipeError, match=r"is the class Half: give an object of it, as in `Half\(\)`"):
        sftplug.load(given(tmp_path, masking=Half))


def test_a_dict_and_a_file_are_one_recipe(tmp_path):
    recipe = given(tmp_path)
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(recipe))
    mine, theirs = (sftplug.load(given).recipe.model_dump() for given in (recipe, tmp_path / "my.yaml"))
    assert mine == theirs


def test_check_names_what_is_wrong_with_the_rows(tmp_path):
    recipe = given(tmp_path)
    assert sftplug.check(recipe) == []
    (tmp_path / "rows.jsonl").write_text('{"messages": [{"role": "wizard", "content": "x"}]}\n')
    (problem,) = sftplug.check(recipe)
    assert "messages[0].role: nobody knows the role 'wizard'" in problem


# --- objects ----------------------------------------------------------------------------------------------------------


def test_a_component_may_be_an_object_of_a_class_that_no_plugin_offers(tmp_path):
    prepared = sftplug.prepare(given(tmp_path, masking=Half(weight=0.25)))
    assert {weight for row in prepared.train["weights"] for weight in row} == {0.0, 0.25}
    recipe = sftplug.load(given(tmp_path, masking=[Half()]))
    assert recipe.recipe.masking == ((Half(),),)
    assert recipe.tree.origins["masking",] == "python"


def test_what_no_file_holds_trains_here_and_is_refused_for_other_processes(tmp_path):
    run = sftplug.train(given(tmp_path, masking=Half()), show=False)
    assert run.loss > 0
    assert "python" in {plugin["distribution"] for plugin in run.directory.plugins()}
    with pytest.raises(sftplug.ModelError, match="launch: the module 'test_python_api' is known to this Py"):
        sftplug.train(given(tmp_path, masking=Half(), launch={"processes": 2}, output=str(tmp_path / "two")))
    with pytest.raises(sftplug.RunError, match=r"a Python program with components of its own \(test_python_api\)"):
        sftplug.open_run(run.output)


def test_a_plugin_file_is_the_way_to_other_processes(tmp_path):
    """What the refusals of ``launch`` and of a run's folder name as the way out."""
    own = "import sftplug\nfrom typing import Literal\n\n" + inspect.getsource(Half)
    hook = "\n\n@sftplug.hookimpl\ndef sftplug_maskings():\n    return [Half]\n"
    (tmp_path / "mine.py").write_text(own + hook, encoding="utf-8")
    plugins, launch = [str(tmp_path / "mine.py")], {"processes": 2}
    assert sftplug.check(given(tmp_path, masking={"half": {"weight": 0.5}}, plugins=plugins, launch=launch)) == []


def test_a_module_of_the_program_is_a_plugin(tmp_path):
    module = types.ModuleType("in_a_cell")
    module.Half = Half

    @sftplug.hookimpl
    def sftplug_maskings():
        return [Half]

    module.sftplug_maskings = sftplug_maskings
    recipe = sftplug.load(given(tmp_path, masking={"half": {"weight": 0.5}}), plugins=[module])
    assert recipe.recipe.masking == ((Half(),),)
    assert "in_a_cell" in recipe.active


# --- rows, preview, plan ----------------------------------------------------------------------------------------------


def test_a_preview_shows_itself_in_a_notebook_and_printed(tmp_path):
    shown = sftplug.preview(given(tmp_path), 2)
    assert [row.index for row in shown.rows] == [0, 1]
    assert "⟦It" in str(shown)
    assert "stops learned: <|im_end|>" in repr(shown)
    assert shown._repr_html_().startswith("<iframe srcdoc=")
    assert "<script" not in shown.to_html()


def test_a_plan_says_whether_it_fits(tmp_path):
    answer = sftplug.plan(given(tmp_path), memory="24GB")
    assert answer.fits
    assert "fits in 24.0 GB" in str(answer) or "fits in" in str(answer)
    assert sftplug.plan(given(tmp_path), memory="1MB", rows=10).fits is False


# --- train ------------------------------------------------------------------------------------------------------------


def bytes_of(folder):
    """Return the bytes of what was trained."""
    return {name: (folder / name).read_bytes() for name in ("adapter_model.safetensors", "adapter_config.json")}


def test_train_is_the_command(tmp_path, command):
    """The same bytes come of both, and the same record."""
    recipe = given(tmp_path)
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(recipe))
    done = command("train", tmp_path / "my.yaml", "--output", tmp_path / "by_command")
    assert done.exit_code == 0, done.exception
    run = sftplug.train(sftplug.load(tmp_path / "my.yaml", f"output={tmp_path / 'by_python'}"), show=False)
    assert bytes_of(run.output) == bytes_of(tmp_path / "by_command")
    names = [sorted(path.name for path in folder.iterdir()) for folder in (run.output, tmp_path / "by_command")]
    assert names[0] == names[1]
    again = sftplug.open_run(run.output)
    assert (again.loss, again.size, again.tokens, again.log) == (run.loss, run.size, run.tokens, run.log)
    assert again.evaluate()["loss"] == run.evaluate()["loss"]


class Interrupting(sftplug.Callback):
    """Presses Ctrl-C after the second step."""

    type: Literal["interrupting"] = "interrupting"

    def trainer_callback(self):
        from transformers import TrainerCallback

        class Press(TrainerCallback):
            def on_step_begin(self, args, state, control, **kwargs):
                if state.global_step == 2 and not (Path(args.output_dir) / "pressed").exists():
                    (Path(args.output_dir) / "pressed").touch()
                    signal.raise_signal(signal.SIGINT)

        return Press()


def test_an_interrupt_saves_a_checkpoint_and_the_next_call_goes_on(tmp_path):
    recipe = given(tmp_path, callbacks=[Interrupting()])
    with pytest.raises(sftplug.Interrupted, match="checkpoint-3 is saved"):
        sftplug.train(recipe, show=False)
    run = sftplug.train(recipe, resume=True, show=False)
    assert [entry["step"] for entry in run.log if "loss" in entry][-1] == 4
    assert run.directory.state().attempts[-1]["from_step"] == 3


def test_other_processes_read_the_recipe_from_the_folder_of_the_run(tmp_path, monkeypatch):
    """With what it holds of secrets, which its owner alone can read; when they have ended, nothing of it is left."""
    recipe = given(tmp_path, launch={"strategy": "ddp", "processes": 2})
    recipe["data"]["train"] = {"path": "https://me:hunter2@example.invalid/rows.jsonl", "format": "messages"}
    seen = {}

    def start(recipe, launch, command):
        file = Path(command[1])
        seen.update(
            command=command, mode=stat.S_IMODE(file.stat().st_mode), text=file.read_text(), theirs=sftplug.load(file)
        )
        raise sftplug.LaunchError("rank 1 failed", 1)

    monkeypatch.setattr("sftplug.launch.start", start)
    with pytest.raises(sftplug.LaunchError):
        sftplug.train(recipe)
    assert seen["command"] == ["train", str(tmp_path / "out" / ".launch.json")]
    assert seen["mode"] == 0o600
    assert "hunter2" in seen["text"]
    assert seen["theirs"].recipe.model_dump() == sftplug.load(recipe).recipe.model_dump()
    assert not (tmp_path / "out").exists()


NOTEBOOK = """
import builtins, os, signal, sys, types

class ZMQInteractiveShell:
    pass

class HTML:
    def __init__(self, data):
        self.data = data

class Handle:
    def update(self, what):
        shown.append(what.data)

def display(what, display_id=None):
    shown.append(what.data if isinstance(what, HTML) else what._repr_mimebundle_([], [])["text/plain"])
    return Handle()

shown, builtins.get_ipython = [], ZMQInteractiveShell
module = types.ModuleType("IPython.display")
module.HTML, module.display = HTML, display
sys.modules |= {"IPython": types.ModuleType("IPython"), "IPython.display": module}
signal.signal(signal.SIGINT, signal.default_int_handler)  # as a kernel has it while a cell runs

import sftplug
from transformers import TrainerCallback

class Stop(sftplug.Callback):
    type: str = "stop"

    def trainer_callback(self):
        class Press(TrainerCallback):
            def on_step_begin(self, args, state, control, **kwargs):
                if state.global_step == 2 and "stopped" not in os.environ:
                    os.environ["stopped"] = "yes"
                    os.kill(os.getpid(), signal.SIGINT)

        return Press()

recipe = sftplug.load({**%r, "callbacks": [Stop()]})
try:
    sftplug.train(recipe)
except sftplug.Interrupted as error:
    print("interrupted:", error)
first = len(shown)
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
run = sftplug.train(recipe)
print("steps:", run.directory.state().attempts[-1]["from_step"], run.directory.state().steps)
bars = [text for text in shown if text.startswith("<progress")]
print("bars:", len(bars) > 2, any("4/4 training" in text for text in bars))
print("gone:", shown[:first].count("") >= 1, "" in shown[first:])
"""
"""A program to which IPython seems to be there, as in the kernel of a notebook, where Ctrl-C is the stop button."""


def test_in_a_notebook_progress_is_below_the_cell_and_stopping_it_saves_a_checkpoint(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", NOTEBOOK % given(tmp_path)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "checkpoint-3 is saved" in ran.stdout
    assert "steps: 3 4\nbars: True True\ngone: True True\n" in ran.stdout
    assert "ipywidgets" not in ran.stderr


@pytest.mark.slow
def test_several_processes_are_started_from_a_program_that_is_no_command(tmp_path):
    recipe = given(tmp_path, launch={"strategy": "ddp", "processes": 2}, train={**SHORT, "max_steps": 2})
    code = f"import sftplug\nrun = sftplug.train({recipe!r})\nprint(run.loss, run.evaluate()['loss'])"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert ran.returncode == 0, ran.stderr
    assert "ddp, 2 processes" in ran.stdout
    assert all(float(number) > 0 for number in ran.stdout.split()[-2:])
    assert json.loads((tmp_path / "out" / "origins.json").read_text())["adapter.type"] == "python"


# --- a finished run ---------------------------------------------------------------------------------------------------


def test_what_the_commands_do_with_a_run_is_there_in_python(lora_run, tmp_path, command):
    """Each returns what the command prints."""
    run = sftplug.open_run(shutil.copytree(lora_run, tmp_path / "run"))
    rows = lora_run.parent / "rows.jsonl"
    by_command = json.loads(command("eval", run.output, "--data", rows, "--format", "messages", "--json").output)
    assert run.evaluate(rows) == by_command
    measured = run.evaluate(metrics=["exact_match"], replies=2, max_new_tokens=4)
    assert measured["replies"] == 2
    assert list(run.directory.metrics())[-1]["eval_exact_match"] == measured["metrics"]["exact_match"]["mean"]
    answer = json.loads(command("chat", run.output, "--prompt", "Hi", "--compare-base", "--json").output)
    assert run.chat("Hi") == answer["answer"]
    assert run.conversation(base=True).ask("Hi") == answer["base"]
    talk = run.conversation(system="Be brief.", max_new_tokens=2)
    talk.ask("Hi")
    assert [message["role"] for message in talk.messages] == ["system", "user", "assistant"]
    replayed = run.replay(tmp_path / "rows")
    assert sftplug.replay(run.output).train[:] == replayed.train[:]
    assert {path.name for path in (tmp_path / "rows").iterdir()} == {"train", "eval", "ledger.json"}
    with pytest.raises(sftplug.RunError, match="rows"):
        run.replay(tmp_path / "rows")
    record = run.merge(tmp_path / "merged", data=rows, dtype="fp32")
    assert record["difference"]["relative"] < 0.02
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["dtype"] == "float32"


def test_a_report_is_of_runs_or_of_a_folder_that_holds_them(lora_run, full_run, tmp_path):
    page = sftplug.report([lora_run, full_run], tmp_path / "both.html", rows=0)
    assert (tmp_path / "both.html").read_text() == page
    assert "sftplug report: lora, full" in page
    assert "<script" not in page
    assert "sftplug report: lora<" in sftplug.report(lora_run.parent, rows=1)
    with pytest.raises(sftplug.RunError, match="there is no folder"):
        sftplug.report(lora_run, tmp_path / "missing" / "page.html")
    with pytest.raises(sftplug.RunError, match="nothing of that name"):
        sftplug.report(tmp_path / "missing")


def test_a_model_is_pushed_where_it_can_be_loaded(full_run, lora_run, hub, tmp_path):
    address, seen = hub
    code = (
        "import sys, sftplug\n"
        "pushed = sftplug.open_run(sys.argv[1]).push('me/mine', private=True)\n"
        "print(pushed.repo, *pushed.files)"
    )
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_TOKEN": "hf_" + "a" * 34, "HF_HUB_OFFLINE": "0"}
    environment |= {"HF_HUB_DISABLE_XET": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", code, full_run], capture_output=True, text=True, check=False, env=environment
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split()[0] == "me/mine"
    assert {"model.safetensors", "README.md", "tokenizer.json"} <= set(ran.stdout.split())
    assert set(seen["files"]) == set(ran.stdout.split()[1:])
    with pytest.raises(sftplug.ModelError, match="a base model in a folder"):
        sftplug.push(lora_run, "me/mine")


def test_explain_says_where_each_value_comes_from(tmp_path, command):
    recipe = sftplug.load(given(tmp_path), "adapter.r=4")
    explained = sftplug.explain(recipe, "adapter", "train.max_steps")
    known = {value.path: (value.value, value.origin) for value in explained.values}
    assert known["adapter.r"] == (4, "python")
    assert known["adapter.type"] == ("lora", "python")
    assert known["train.max_steps"] == (4, "python")
    assert known["adapter.dropout"][1] == "default of adapter lora"
    assert "adapter.r" in str(explained)
    with pytest.raises(sftplug.RecipeError, match=r"Did you mean 'adapter.r'\?"):
        sftplug.explain(recipe, "adapter.rr")
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(given(tmp_path)))
    told = command("explain", tmp_path / "my.yaml", "adapter", "--json")
    assert json.loads(told.stdout)["values"] == sftplug.explain(tmp_path / "my.yaml", "adapter").to_dict()["values"]


# --- encode -----------------------------------------------------------------------------------------------------------

CHAT = [
    {"role": "user", "content": "What is 6 times 7?"},
    {"role": "assistant", "content": "It is 42."},
    {"role": "user", "content": "And 7 times 7?"},
    {"role": "assistant", "content": "49"},
]


@pytest.fixture(scope="module")
def tokenizer():
    from sftplug_tiny.builder import build_tokenizer

    return build_tokenizer(1024)


def with_template(tokenizer, source):
    """Return a copy of a tokenizer that has a chat template, as those of chat models do."""
    own = copy.deepcopy(tokenizer)
    own.chat_template = source
    return own


def test_encode_is_a_drop_in_for_assistant_masks(tokenizer):
    """transformers needs a template edited with `{% generation %}` for it; the same masks come of the unedited one."""
    source = (files("sftplug_templates") / "chatml.jinja").read_text()
    edited = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}"
        "{% else %}{{ m.content + '<|im_end|>\\n' }}{% endif %}{% endfor %}"
    )
    theirs = tokenizer.apply_chat_template(
        CHAT, chat_template=edited, return_dict=True, return_assistant_tokens_mask=True, tokenize=True
    )
    names = {"sftplug": sftplug, "tokenizer": with_template(tokenizer, source), "messages": CHAT}
    exec(shown("a drop-in"), names)
    ours = names["encoded"]
    assert ours.input_ids == list(theirs["input_ids"])
    assert ours.assistant_masks == list(theirs["assistant_masks"])
    assert ours.attention_mask == list(theirs["attention_mask"])


def test_encode_tells_part_and_author_of_each_token(tokenizer):
    before = tokenizer.chat_template
    one = sftplug.encode(tokenizer, CHAT, chat_template="chatml")
    assert tokenizer.chat_template == before
    assert {(role, part) for role, part, weight in zip(one.roles, one.parts, one.weights, strict=True) if weight} == {
        ("assistant", "content"),
        ("assistant", "end_of_turn"),
    }
    assert one.labels == [i if weight else -100 for i, weight in zip(one.input_ids, one.weights, strict=True)]
    both = sftplug.encode(tokenizer, [CHAT, CHAT[:2]], chat_template="chatml", masking=Half())
    assert [set(item.weights) for item in both] == [{0.0, 0.5}] * 2
    assert both[0].row().keys() == {"input_ids", "labels", "weights"}
    text = "".join(one.text[start:end] for (start, end), weight in zip(one.offsets, one.weights, strict=True) if weight)
    assert text == "It is 42.<|im_end|>49<|im_end|>"


def test_encode_takes_the_template_that_it_asks_for(tokenizer):
    with pytest.raises(
        sftplug.SftplugError, match=r"no chat template\. Name one: chat_template='chatml', or Jinja source"
    ):
        sftplug.encode(tokenizer, CHAT)
    assert sftplug.encode(tokenizer, CHAT, chat_template="chatml").input_ids


def test_decode_reads_back_what_a_model_generates_and_the_next_turn_is_rendered_as_in_training(tokenizer):
    import torch

    own = with_template(tokenizer, FORGETS)
    said = own("<think>Six sevens.</think>42<|im_end|>", add_special_tokens=False)["input_ids"]

    class Model:
        def generate(self, input_ids, max_new_tokens):
            assert max_new_tokens >= len(said)
            return torch.cat([input_ids, torch.tensor([said])], dim=1)

    messages = [{"role": "user", "content": "6 times 7?"}]
    names = {"sftplug": sftplug, "tokenizer": own, "torch": torch, "model": Model(), "messages": messages}
    exec(shown("decode"), names)
    assert messages[1] == {"role": "assistant", "content": "42", "reasoning_content": "Six sevens."}
    assert (names["reply"].stopped, names["reply"].exact, names["reply"].problem) == (True, True, "")
    assert sftplug.encode(own, messages).labels[-len(said) - 1 : -1] == said


FORGETS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.reasoning_content and loop.last %}{{ '<think>' + m.reasoning_content + '</think>' }}{% endif %}"
    "{{ m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""A template that leaves out the reasoning of earlier turns, as those of most reasoning models do."""
THOUGHT = [
    {"role": "user", "content": "6 times 7?"},
    {"role": "assistant", "content": "42", "reasoning_content": "Six sevens."},
    {"role": "user", "content": "And 7 times 7?"},
    {"role": "assistant", "content": "49", "reasoning_content": "Seven more."},
]


def test_encode_splits_divergent_turns_as_the_pipeline_does(tokenizer, tmp_path):
    with pytest.raises(sftplug.MaskError, match=r"'Six sevens\.' is shown at inference") as caught:
        sftplug.encode(tokenizer, THOUGHT, chat_template=FORGETS)
    assert "on_divergence='split' returns such turns as rows of their own." in str(caught.value)
    from datasets import Dataset

    chats = [CHAT, THOUGHT]
    names = {"sftplug": sftplug, "tokenizer": with_template(tokenizer, FORGETS), "Dataset": Dataset}
    exec(shown("split into rows"), {**names, "raw": Dataset.from_list([{"messages": c} for c in chats])}, names)
    assert [row.conversation for row in names["rows"]] == [0, 1, 1]
    trained = [[i for i in row["labels"] if i != -100] for row in names["data"]]
    assert tokenizer.batch_decode(trained)[1:] == [
        "<think>Seven more.</think>49<|im_end|>",
        "<think>Six sevens.</think>42<|im_end|>",
    ]
    (tmp_path / "forgets.jinja").write_text(FORGETS)
    recipe = given(tmp_path, chat_template={"type": "file", "path": str(tmp_path / "forgets.jinja")})
    write_rows(tmp_path / "rows.jsonl", [{"messages": chat} for chat in chats])
    recipe["data"] = {"train": {"path": str(tmp_path / "rows.jsonl")}}
    prepared = sftplug.prepare(recipe).train
    pairs = [sorted(zip(data["input_ids"], data["labels"], strict=True)) for data in (names["data"], prepared)]
    assert pairs[0] == pairs[1]
    assert isinstance(sftplug.encode(tokenizer, CHAT, chat_template="chatml", on_divergence="split"), list)


def test_encode_takes_tools_and_says_which_are_not_shown(tokenizer):
    """Of all conversations or of each."""
    tools = [{"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}]
    shows = "{% for t in tools or [] %}{{ t.function.name }};{% endfor %}" + FORGETS
    assert sftplug.encode(tokenizer, CHAT, tools, chat_template=shows).text.startswith("clock;")
    both = sftplug.encode(tokenizer, [CHAT, CHAT], [tools, None], chat_template=shows)
    assert [row.text.startswith("clock;") for row in both] == [True, False]
    with pytest.raises(sftplug.DataError, match="there are tools for 1 conversations, and 2 conversations"):
        sftplug.encode(tokenizer, [CHAT, CHAT], [tools], chat_template=shows)
    with pytest.raises(sftplug.MaskError, match="dropped_tools='warn' trains without the tools"):
        sftplug.encode(tokenizer, CHAT, tools, chat_template=FORGETS)
    assert sftplug.encode(tokenizer, CHAT, tools, chat_template=FORGETS, dropped_tools="warn").labels


def test_encode_refuses_what_the_pipeline_refuses(tokenizer):
    with pytest.raises(sftplug.DataError, match="no token is trained"):
        sftplug.encode(tokenizer, CHAT[:1], chat_template="chatml")
    with pytest.raises(sftplug.DataError, match=r"conversation 1: messages\[0\].role: nobody knows the role 'wizard'"):
        sftplug.encode(tokenizer, [CHAT, [{"role": "wizard", "content": "x"}]], chat_template="chatml")
    with pytest.raises(sftplug.MaskError, match="stop"):
        sftplug.encode(
            tokenizer, CHAT, chat_template="{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        )
    with pytest.raises(sftplug.RecipeError, match=r"Did you mean 'assistant'\?"):
        sftplug.encode(tokenizer, CHAT, chat_template="chatml", masking="asistant")
    endless, stopless = copy.copy(tokenizer), "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    endless.eos_token = None
    with pytest.raises(sftplug.ModelError, match="has no EOS that `missing_stop: append_eos` could add"):
        sftplug.encode(endless, CHAT, chat_template=stopless, missing_stop="append_eos")
    assert sftplug.encode(endless, CHAT, chat_template=stopless, missing_stop="warn").labels
    ending = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    assert sftplug.encode(endless, CHAT, chat_template=ending, missing_stop="append_eos").labels


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing`:FutureWarning")
def test_three_lines_put_it_into_trl(tokenizer, tmp_path):
    """The labels reach the loss as they are: it is that of a hand-written sum over the trained tokens."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer
    from twins import make_model

    model = make_model("llama", len(tokenizer))
    quiet = {"report_to": "none", "use_cpu": True, "bf16": False, "max_steps": 1, "logging_steps": 1}
    names = {
        "sftplug": sftplug,
        "tokenizer": with_template(tokenizer, (files("sftplug_templates") / "chatml.jinja").read_text()),
        "raw": Dataset.from_list([{"messages": CHAT}] * 4),
        "model": model,
        "SFTTrainer": SFTTrainer,
        "SFTConfig": functools.partial(SFTConfig, save_strategy="no", disable_tqdm=True, **quiet),
        "output": str(tmp_path),
    }
    exec(shown("into TRL"), names)
    trainer = names["trainer"]
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["labels"][0].tolist() == sftplug.encode(tokenizer, CHAT, chat_template="chatml").labels
    with torch.no_grad():
        logits = model(batch["input_ids"]).logits[:, :-1].float().log_softmax(-1)
        wanted, trained = batch["labels"][:, 1:], batch["labels"][:, 1:] != -100
        loss = -logits.gather(-1, wanted.clamp(min=0)[..., None])[..., 0][trained].mean()
        found = model(batch["input_ids"], labels=batch["labels"]).loss
    assert float(found) == pytest.approx(float(loss), rel=1e-4)
    before = model.lm_head.weight.detach().clone()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the libraries say of a plain loop on a CPU is not a matter of ours
        trainer.train()
    assert next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry) == pytest.approx(
        float(loss), rel=1e-3
    )
    assert not torch.equal(before, model.lm_head.weight)
