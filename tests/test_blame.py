"""What a plugin's code returns or raises by mistake is blamed on plugin, component, file and line."""

import json
import textwrap

import pytest
from typer.testing import CliRunner

from sftplug.cli import app

HEAD = "from typing import ClassVar\nimport sftplug\nfrom sftplug import *\n"

KINDS = {
    "sftplug_dataset_sources": (
        "source",
        "DatasetSource",
        {
            "rows": "yield Row({'text': 'Hello'}, 'here:1')",
            "label": "return 'here'",
            "fingerprint": "return 'x'",
        },
    ),
    "sftplug_dataset_formats": (
        "format",
        "DatasetFormat",
        {"to_conversation": "return Conversation((Message('user', 'Hi'), Message('assistant', 'Ho')))"},
    ),
    "sftplug_row_processors": ("row processor", "RowProcessor", {"process": "return row.data"}),
    "sftplug_chat_templates": ("chat template", "ChatTemplate", {"source": "return ''"}),
    "sftplug_maskings": ("masking", "Masking", {"weights": "return tokens.trainable"}),
    "sftplug_length_policies": ("length policy", "LengthPolicy", {"shorten": "return []"}),
    "sftplug_model_builders": ("model builder", "ModelBuilder", {"build": "pass"}),
    "sftplug_quantizations": (
        "quantization",
        "Quantization",
        {"load_kwargs": "import torch; return {'dtype': torch.float32}", "prepare_model": "pass"},
    ),
    "sftplug_adapters": (
        "adapter",
        "Adapter",
        {"peft_config": "return None", "check_model": "return []", "prepare_model": "pass"},
    ),
    "sftplug_model_patches": ("model patch", "ModelPatch", {"after_loading": "pass"}),
    "sftplug_losses": ("loss", "Loss", {"token_losses": "return tokens.nll()"}),
    "sftplug_heads": (
        "head",
        "Head",
        {"nll": "return -layer.logits(states).log_softmax(-1).gather(1, labels[:, None])[:, 0]"},
    ),
    "sftplug_optimizers": (
        "optimizer",
        "Optimizer",
        {"optimizer": "return sftplug.require('torch', needed_by='mine').optim.SGD(trained.groups(), learning_rate)"},
    ),
    "sftplug_schedules": ("schedule", "Schedule", {"multiplier": "return 1.0"}),
    "sftplug_callbacks": ("callback", "Callback", {"trainer_callback": "return None"}),
    "sftplug_metrics": ("metric", "Metric", {"scores": "return [0.0] * len(replies)"}),
}
SIGNATURES = {
    "process": "row",
    "stream": "rows, context",
    "to_conversation": "row",
    "source": "tokenizer",
    "weights": "tokens",
    "shorten": "row",
    "build": "directory",
    "prepare_model": "model",
    "before_loading": "config",
    "after_loading": "model",
    "check_model": "model",
    "check": "recipe",
    "scores": "replies",
    "token_losses": "tokens",
    "nll": "states, layer, labels",
    "optimizer": "trained, learning_rate",
    "state_bytes": "trained",
    "multiplier": "step, horizon",
}


def write_plugin(file, hook, **methods):
    """Write a plugin with one component, `mine`; return the line on which each of its methods stands."""
    _, base, bodies = KINDS[hook]
    lines = [*HEAD.splitlines(), f"class Mine({base}):", "    type: str = 'mine'"]
    if base == "Quantization":
        lines += ["    bits: ClassVar[int] = 32", "    trainable: ClassVar[bool] = True"]
    where = {}
    for name, body in {**bodies, **methods}.items():
        arguments = ", ".join(filter(None, ["self", SIGNATURES.get(name)]))
        lines += [f"    def {name}({arguments}):", *textwrap.indent(body, " " * 8).splitlines()]
        where[name] = len(lines) - len(body.splitlines())
    lines += ["@sftplug.hookimpl", f"def {hook}():", "    return [Mine]"]
    file.write_text("\n".join(lines) + "\n")
    return where


USES = {
    "sftplug_row_processors": ["data.train.process=mine"],
    "sftplug_dataset_sources": ["data.train=[{source: mine, format: text}]", "masking=all"],
    "sftplug_dataset_formats": ["data.train.format=mine"],
    "sftplug_chat_templates": ["chat_template=mine"],
    "sftplug_maskings": ["masking=mine"],
    "sftplug_length_policies": ["data.too_long=mine", "data.max_length=20"],
    "sftplug_model_builders": ["model={build: mine}"],
    "sftplug_quantizations": ["quantization=mine"],
    "sftplug_adapters": ["adapter=mine"],
    "sftplug_model_patches": ["patches=mine", "train.max_steps=1"],
    "sftplug_losses": ["loss=mine", "train.max_steps=1"],
    "sftplug_heads": ["loss={type: dft, head: mine}", "train.max_steps=1"],
    "sftplug_optimizers": ["optimizer=mine", "train.max_steps=1"],
    "sftplug_schedules": ["schedule=mine", "train.max_steps=1"],
    "sftplug_callbacks": ["callbacks=mine"],
    "sftplug_metrics": [
        "evaluation={metrics: mine, max_new_tokens: 1}",
        "data.eval_fraction=0.25",
        "train.max_steps=1",
    ],
}

_NLL = "__import__('torch').nn.functional.cross_entropy((states @ layer.weight.T).float(), labels, reduction='none')"
"""What a head computes; it is compared with the model's own logits before anything else."""
WRONG = [
    ("sftplug_row_processors", "process", "return None", "must return the columns of a row (a mapping), a ", "prepare"),
    (
        "sftplug_row_processors",
        "process",
        "return [row]",
        "must return the columns of a row (a mapping), a ",
        "prepare",
    ),
    ("sftplug_row_processors", "process", "return []", "must say why a row does not go on: return ", "prepare"),
    ("sftplug_row_processors", "process", "return {1: 2}", "must name columns by text, not by 1", "prepare"),
    ("sftplug_row_processors", "process", "return Dropped('')", "must give the reason for a row that it ", "prepare"),
    ("sftplug_row_processors", "process", "return row.data['no']", "failed: KeyError: 'no'", "prepare"),
    ("sftplug_row_processors", "fingerprint", "return 1", "must return text or None, not int", "prepare"),
    ("sftplug_maskings", "weights", "return tokens.trainable[:-1]", "returned an array of shape (", "prepare"),
    ("sftplug_maskings", "weights", "return tokens.trainable * -1.0", "gave token ", "prepare"),
    ("sftplug_maskings", "weights", "return [None] * len(tokens.ids)", "returned an array of object;", "prepare"),
    ("sftplug_maskings", "weights", "return tokens.nothing", "failed: AttributeError: 'TokenBatch' object", "prepare"),
    (
        "sftplug_dataset_formats",
        "to_conversation",
        "return dict(row)",
        "must return a sftplug.Conversation, not dict",
        "prepare",
    ),
    (
        "sftplug_dataset_formats",
        "to_conversation",
        "return Conversation(({'role': 'user'},))",
        "must return a conversation of sftplug.Message, not of dict",
        "prepare",
    ),
    ("sftplug_dataset_formats", "to_conversation", "return row['no']", "failed: KeyError: 'no'", "prepare"),
    (
        "sftplug_dataset_sources",
        "rows",
        "yield {'text': 'x'}",
        "must yield sftplug.Row(data, origin), not dict",
        "prepare",
    ),
    (
        "sftplug_dataset_sources",
        "rows",
        "yield Row('x', 'here:1')",
        "must yield sftplug.Row(data, origin), not Row with data of str",
        "prepare",
    ),
    ("sftplug_dataset_sources", "rows", "return None", "must yield rows, not return NoneType", "prepare"),
    ("sftplug_dataset_sources", "rows", "yield 1 / 0", "failed: ZeroDivisionError: division by zero", "prepare"),
    ("sftplug_dataset_sources", "label", "return None", "must return text, not NoneType", "prepare"),
    ("sftplug_dataset_sources", "fingerprint", "return 7", "must return text or None, not int", "prepare"),
    (
        "sftplug_chat_templates",
        "source",
        "return None",
        "must return the template's Jinja source as text, not NoneType",
        "prepare",
    ),
    ("sftplug_chat_templates", "source", "return {}['no']", "failed: KeyError: 'no'", "prepare"),
    (
        "sftplug_length_policies",
        "shorten",
        "return [row.conversation]",
        "must return conversations with fewer messages than the row's 2, or a slice of its tokens, or slices, not list",
        "prepare",
    ),
    (
        "sftplug_length_policies",
        "shorten",
        "return None",
        "or a slice of its tokens, or slices, not NoneType",
        "prepare",
    ),
    ("sftplug_model_builders", "build", "raise OSError('no room')", "failed: OSError: no room", "prepare"),
    (
        "sftplug_quantizations",
        "load_kwargs",
        "return None",
        "must return a dict of keyword arguments, not NoneType",
        "check",
    ),
    (
        "sftplug_quantizations",
        "load_kwargs",
        "return {'revision': 'main'}",
        "must not return 'revision': the recipe's `model.revision` decides it",
        "check",
    ),
    ("sftplug_quantizations", "loading_code", "return None", "must return Python as text, not NoneType", "train"),
    ("sftplug_quantizations", "loading_code", "return 'for'", "must return Python: invalid syntax, line 1", "train"),
    ("sftplug_quantizations", "loading_code", "return 'import torch, sftplug'", "must do without sftplug", "train"),
    ("sftplug_quantizations", "prepare_model", "model.nothing()", "failed: AttributeError: ", "train"),
    (
        "sftplug_adapters",
        "peft_config",
        "return {'r': 8}",
        "must return a peft.PeftConfig or None, not dict",
        "train",
    ),
    (
        "sftplug_adapters",
        "peft_config",
        "from peft import LoraConfig; return LoraConfig",
        "must return a peft.PeftConfig or None, not the class LoraConfig",
        "train",
    ),
    (
        "sftplug_adapters",
        "check_model",
        "return 'no'",
        "must yield sentences, or return a list of them, not str",
        "check",
    ),
    (
        "sftplug_adapters",
        "check",
        "return None",
        "must yield sentences, or return a list of them, not NoneType",
        "check",
    ),
    ("sftplug_adapters", "check", "yield 1", "must yield sentences, or return a list of them, not generator", "check"),
    (
        "sftplug_callbacks",
        "trainer_callback",
        "return 1",
        "must return an instance of TrainerCallback, not int",
        "train",
    ),
    ("sftplug_model_patches", "before_loading", "return None", "must return a context manager, which undoes", "check"),
    ("sftplug_model_patches", "before_loading", "return config.nothing", "failed: AttributeError: ", "check"),
    ("sftplug_model_patches", "after_loading", "return 1", "must return the model, of the class Llama", "train"),
    (
        "sftplug_model_patches",
        "after_loading",
        "model.own = sftplug.require('torch', needed_by='mine').nn.Linear(2, 2)",
        "must leave the parameters of the model as they are: own.weight was not there and is [2, 2];",
        "train",
    ),
    ("sftplug_model_patches", "after_loading", "model.nothing()", "failed: AttributeError: ", "train"),
    ("sftplug_model_patches", "loading_code", "return 'for'", "must return Python: invalid syntax, line 1", "train"),
    ("sftplug_model_patches", "check_model", "yield 1", "must yield sentences, or return a list of them, not", "check"),
    ("sftplug_losses", "token_losses", "return 1.0", "must return a tensor, not float", "train"),
    (
        "sftplug_losses",
        "token_losses",
        "return tokens.nll().mean()",
        "tokens: a float tensor of shape (",
        "train",
    ),
    ("sftplug_losses", "token_losses", "return tokens.nll().detach()", "gradient does not reach them", "train"),
    ("sftplug_losses", "token_losses", "return tokens.nothing", "failed: AttributeError: 'TrainedTokens'", "train"),
    ("sftplug_heads", "nll", "return 1.0", "must return a tensor, not float", "train"),
    ("sftplug_heads", "nll", "return states.sum(-1).mean()", "tokens: a float tensor of shape (", "train"),
    ("sftplug_heads", "nll", f"return {_NLL}.detach()", "gradient does not reach them", "train"),
    ("sftplug_heads", "nll", "return layer.nothing", "failed: AttributeError: 'OutputLayer'", "train"),
    ("sftplug_heads", "check_model", "yield 1", "must yield sentences, or return a list of them, not", "check"),
    ("sftplug_heads", "check_model", "return model.nothing", "failed: AttributeError: ", "check"),
    ("sftplug_optimizers", "optimizer", "return None", "must return a torch.optim.Optimizer, not NoneType", "check"),
    (
        "sftplug_optimizers",
        "optimizer",
        "from torch.optim import SGD\nreturn SGD([trained.parameters[0].value], learning_rate)",
        "must hold every trained parameter once, and holds 1.weight 0 times",
        "check",
    ),
    (
        "sftplug_optimizers",
        "optimizer",
        "import torch\nreturn torch.optim.SGD([*trained.groups(), {'params': torch.ones(2)}], learning_rate)",
        "must hold the 5 trained parameters and no others, and holds 6",
        "check",
    ),
    ("sftplug_optimizers", "optimizer", "return trained.nothing", "failed: AttributeError: 'TrainedParam", "check"),
    ("sftplug_optimizers", "state_bytes", "return 1.5", "must return a number of bytes, or None, not 1.5", "plan"),
    ("sftplug_schedules", "multiplier", "return -1.0", "must return a finite number, 0 or more, not -1.0", "check"),
    ("sftplug_schedules", "multiplier", "return 'half'", "must return a finite number, 0 or more, not 'half'", "check"),
    ("sftplug_schedules", "multiplier", "return 1 / step", "failed: ZeroDivisionError: ", "check"),
    ("sftplug_metrics", "scores", "return 'ab'", "must return a list of numbers, not str", "train"),
    ("sftplug_metrics", "scores", "return None", "must return a list of numbers, not NoneType", "train"),
    (
        "sftplug_metrics",
        "scores",
        "return [1.0]",
        "must return a number for each of the 4 replies, in their order, and returned 1",
        "train",
    ),
    (
        "sftplug_metrics",
        "scores",
        "return [1.0] * 3 + [float('nan')]",
        "score nan: return a finite number, 0.0 for what is worth nothing",
        "train",
    ),
    (
        "sftplug_metrics",
        "scores",
        "return ['1'] * 4",
        "returned str: make it a float",
        "train",
    ),
    ("sftplug_metrics", "scores", "return replies.nothing", "failed: AttributeError: 'list' object has no", "train"),
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("case", WRONG, ids=lambda case: f"{case[1]}: {case[2]}")
def test_what_a_component_returns_or_raises_by_mistake(recipe_file, tmp_path, case):
    hook, method, body, text, command = case
    where = write_plugin(tmp_path / "odd.py", hook, **{method: body})
    file = recipe_file(plugins=["./odd.py"])
    output = ["--output", str(tmp_path / "p")] if command not in ("check", "plan") else []
    result = CliRunner().invoke(app, [command, str(file), *USES[hook], *output])
    said = str(result.exception)
    assert f"{KINDS[hook][0]} 'mine' of plugin odd (file): {method}() " in said
    assert text in said
    line = where[method] + ("failed" in text)
    assert f"({tmp_path / 'odd.py'}:{line}" in said


WATCHER = """
from sftplug import hookimpl

@hookimpl
def sftplug_{moment}({arguments}):
    {body}
"""


def watch(tmp_path, moment, body, arguments=""):
    (tmp_path / "watcher.py").write_text(WATCHER.format(moment=moment, body=body, arguments=arguments))


def test_a_moment_hook_that_raises_stops_the_run_and_is_named(recipe_file, tmp_path):
    watch(tmp_path, "recipe_loaded", "return 1 / 0")
    result = CliRunner().invoke(app, ["train", str(recipe_file(plugins=["./watcher.py"]))])
    text = "plugin watcher (file): sftplug_recipe_loaded() failed: ZeroDivisionError: division by zero ("
    assert str(result.exception) == f"{text}{tmp_path / 'watcher.py'}:6)"
    assert result.exception.exit_code == 2


def test_a_moment_hook_that_returns_something_meant_to_change_something(recipe_file, tmp_path):
    watch(tmp_path, "recipe_loaded", "return {'adapter': 'full'}")
    result = CliRunner().invoke(app, ["train", str(recipe_file(plugins=["./watcher.py"]))])
    text = (
        "plugin watcher (file): sftplug_recipe_loaded() must return nothing, not dict: it observes and changes nothing"
    )
    assert str(result.exception) == f"{text} ({tmp_path / 'watcher.py'}:4)"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_after_the_run_every_other_plugin_is_told_and_the_result_is_there(recipe_file, tmp_path):
    watch(tmp_path, "run_finished", "raise RuntimeError('no network')")
    result = CliRunner().invoke(app, ["train", str(recipe_file(plugins=["./watcher.py"], train={"max_steps": 1}))])
    said = str(result.exception)
    assert "plugin watcher (file): sftplug_run_finished() failed: RuntimeError: no network (" in said
    assert f"The run itself is over: its result is saved in {tmp_path / 'out'}." in said
    assert result.exception.exit_code == 1
    assert (tmp_path / "out" / "plugins.json").is_file()
    assert "saved in" in result.output  # the console's own hook was called all the same


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_plugin_that_fails_over_a_failure_does_not_hide_it(recipe_file, tmp_path):
    watch(tmp_path, "run_failed", "raise RuntimeError('no network')", "error")
    hook = "\n@hookimpl\ndef sftplug_trainer_created(recipe):\n    raise ValueError('first of all')\n"
    with (tmp_path / "watcher.py").open("a") as file:
        file.write(hook)
    result = CliRunner().invoke(app, ["train", str(recipe_file(plugins=["./watcher.py"]))])
    assert "sftplug_trainer_created() failed: ValueError: first of all (" in str(result.exception)
    assert "sftplug_run_failed() failed: RuntimeError: no network (" in result.exception.__notes__[0]


# --- in the midst of training -----------------------------------------------------------------------------------------

LOOP = """import sftplug
from transformers import TrainerCallback

class Made(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 2 and {component}:
            return helped({{}})

class Added(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if not {component}:
            return helped({{}})

def helped(known):
    return known["nothing"]

class Mine(sftplug.Callback):
    type: str = "mine"
    def trainer_callback(self):
        return Made()

@sftplug.hookimpl
def sftplug_callbacks():
    return [Mine]

@sftplug.hookimpl
def sftplug_trainer_created(trainer):
    trainer.add_callback(Added())
"""


@pytest.mark.parametrize(
    ("component", "whose"),
    [(True, "callback 'mine' of plugin loop (file)"), (False, "callback Added of plugin loop (file)")],
)
def test_a_callback_that_fails_in_the_midst_of_training_is_blamed(recipe_file, command, tmp_path, component, whose):
    (tmp_path / "loop.py").write_text(LOOP.format(component=component))
    file = recipe_file(plugins=["./loop.py"], callbacks=["mine"], adapter="lora")
    said = str(command("train", file).exception)
    assert said == f"{whose}: on_step_end() failed: KeyError: 'nothing' ({tmp_path}/loop.py:15)"


REPLACED = """import types
import sftplug

def own_loss(trainer, model, inputs, return_outputs=False, num_items_in_batch=None):
    labels = inputs["labels"][:, 1:]
    logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, :-1]
    if trainer.state.global_step == {fails}:
        return helped({{}})
    nll = -logits.log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    return nll[labels != -100].sum() / num_items_in_batch

def helped(known):
    return known["nothing"]

@sftplug.hookimpl
def sftplug_trainer_created(trainer):
    {hook}
"""
IN_PLACE = "trainer.compute_loss = types.MethodType(own_loss, trainer)"


def test_tokens_are_counted_whoever_computes_the_loss(recipe_file, command, tmp_path):
    steps = {"train": {"max_steps": 3, "per_device_train_batch_size": 4, "logging_steps": 1}, "adapter": "lora"}
    own = command("train", recipe_file(**steps), f"output={tmp_path / 'own'}")
    (tmp_path / "loop.py").write_text(REPLACED.format(fails=-1, hook=IN_PLACE))
    other = command("train", recipe_file(plugins=["./loop.py"], **steps), f"output={tmp_path / 'other'}")
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("own", "other")]
    assert results[0]["tokens"] == results[1]["tokens"] > 100
    losses = [[entry["loss"] for entry in result["log"] if "loss" in entry] for result in results]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    place = f"{tmp_path / 'loop.py'}:4"
    told = f"head of the loss: none: `compute_loss` was replaced by {place}, and what it returns is"
    assert "".join(told.split()) in "".join(other.output.split())  # a console breaks long paths
    assert "head of the loss" not in own.output
    assert json.loads((tmp_path / "other" / "run.json").read_text())["head"]["replaced_by"] == place


@pytest.mark.parametrize(
    ("sections", "void"),
    [
        ({"loss": "dft"}, "loss 'dft' of plugin losses"),
        ({"loss": {"type": "cross_entropy", "head": "chunked"}}, "head 'chunked' of plugin losses"),
        ({"callbacks": ["loss_by"]}, "callback 'loss_by' of plugin callbacks"),
        ({"masking": [{"type": "regex", "pattern": "It is", "weight": 0.5}, "assistant"]}, "the weights of tokens"),
    ],
)
def test_what_a_replaced_loss_would_leave_undone_is_said(recipe_file, command, tmp_path, sections, void):
    (tmp_path / "loop.py").write_text(REPLACED.format(fails=-1, hook=IN_PLACE))
    said = str(command("train", recipe_file(plugins=["./loop.py"], adapter="lora", **sections)).exception)
    assert said.startswith(f"the trainer's `compute_loss` was replaced by {tmp_path / 'loop.py'}:4, so what the recipe")
    assert void in said


def test_a_function_that_nobody_would_call_is_refused(recipe_file, command, tmp_path):
    (tmp_path / "loop.py").write_text(REPLACED.format(fails=-1, hook="trainer.compute_loss_func = own_loss"))
    said = str(command("train", recipe_file(plugins=["./loop.py"], adapter="lora")).exception)
    assert said.startswith(f"the trainer's `compute_loss_func` was set to {tmp_path / 'loop.py'}:4, and a run of")


def test_a_loss_in_the_place_of_the_trainer_s_is_blamed_when_it_fails(recipe_file, command, tmp_path):
    (tmp_path / "loop.py").write_text(REPLACED.format(fails=1, hook=IN_PLACE))
    said = str(command("train", recipe_file(plugins=["./loop.py"], adapter="lora")).exception)
    assert said == f"plugin loop (file): compute_loss() failed: KeyError: 'nothing' ({tmp_path}/loop.py:13)"
