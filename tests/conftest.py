"""What the tests share: a model small enough for any test, and recipes written on the spot."""

import json
import os
import random
from pathlib import Path

import hypothesis
import pytest
import yaml
from twins import write_twin
from typer.testing import CliRunner

import sftplug

# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

# Tests that came with plugins of earlier versions run from a copy, with those plugins installed: test_frozen.py.
collect_ignore = ["frozen"]

TINY = {"type": "tiny", "pretrain_steps": 0, "layers": 2, "hidden_size": 64}
"""A model with random weights: 0.3 s to build, once a session."""


EVERYTHING = "SFTPLUG_TESTS_NEED_EVERYTHING"
"""Set where nothing may be skipped for want of a program: `.ci/run` installs what tests need."""


def pytest_runtest_setup(item):
    """Skip a test that needs what this machine lacks, in words; where nothing may be skipped, fail it."""
    for mark in item.iter_markers("needs"):
        if not mark.kwargs["there"]:
            end = pytest.fail if EVERYTHING in os.environ else pytest.skip
            end(f"needs {mark.args[0]}")


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    """Built models go to a folder of the session's own, and nothing calls out."""
    os.environ["SFTPLUG_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_DATASETS_CACHE"] = str(tmp_path_factory.mktemp("datasets"))


@pytest.fixture(autouse=True, scope="session")
def _known_cpu():
    """Every machine's CPU multiplies bfloat16 twice as fast as float32: what a recipe leaves to it decides no test."""
    from sftplug.util import device

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "measured", lambda: (1e11, 2e11))
        yield


@pytest.fixture
def slow_bfloat16(monkeypatch):
    """The CPU has no units for bfloat16."""
    from sftplug.util import device

    monkeypatch.setattr(device, "measured", lambda: (1e11, 1e10))
    device._look.cache_clear()
    yield
    device._look.cache_clear()


def rows(count=24, seed=0):
    """Return questions with answers that a model can learn by heart."""
    rng = random.Random(seed)
    words = ["red", "green", "blue", "north", "south", "iron", "gold", "seven", "nine", "cat"]
    made = []
    for index in range(count):
        question = {"role": "user", "content": f"Question {index}: {rng.choice(words)} or {rng.choice(words)}?"}
        made.append({"messages": [question, {"role": "assistant", "content": f"It is {words[index % 3]}."}]})
    return made


def transformers_text(template, messages, tools=None, **arguments):
    """Return what transformers itself renders."""
    from transformers.utils.chat_template_utils import render_jinja_template

    (text,), _ = render_jinja_template([messages], tools=tools, chat_template=template.source, **arguments)
    return text


def write_rows(path: Path, data) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in data), encoding="utf-8")
    return path


@pytest.fixture
def recipe_file(tmp_path):
    """Return a function that writes a recipe, its sections laid over a small valid one, and returns its path."""

    def write(name="recipe", data=None, **sections):
        write_rows(tmp_path / "rows.jsonl", rows() if data is None else data)
        recipe = {
            "model": {"build": TINY},
            "data": {"train": {"path": "rows.jsonl", "format": "messages"}, "max_length": 256},
            "chat_template": "chatml",
            "quantization": "fp32",
            "train": {"max_steps": 4, "per_device_train_batch_size": 4, "learning_rate": 5e-3, "logging_steps": 1},
            "output": str(tmp_path / "out"),
            **sections,
        }
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump({k: v for k, v in recipe.items() if v is not None}, sort_keys=False))
        return file

    return write


def train_file(file, *overrides, overwrite=True, **how):
    """Train a recipe file in this process and return what came of it."""
    return sftplug.train(sftplug.load(file, *overrides), overwrite=overwrite, show=False, **how)


@pytest.fixture
def run():
    """Return a function that trains a recipe file and returns what came of it."""
    return train_file


@pytest.fixture
def prepared():
    """Return a function that prepares a recipe file's rows."""
    return lambda file, *overrides: sftplug.prepare(sftplug.load(file, *overrides))


# --- finished runs, trained once a session by the command that a user types; tests read them and write nothing --------

SHORT = {
    "max_steps": 12,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-2,
    "logging_steps": 4,
    "save_strategy": "no",
    "eval_strategy": "no",
}


def train_run(folder: Path, name: str, **sections) -> Path:
    """Train a recipe that is laid over a small one; return the folder of the run."""
    write_rows(folder / "rows.jsonl", rows())
    recipe = {
        "model": {"build": TINY},
        "data": {"train": {"path": "rows.jsonl", "format": "messages"}, "eval_fraction": 0.25, "max_length": 256},
        "chat_template": "chatml",
        "train": SHORT,
        **sections,
    }
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    from sftplug.cli import app

    result = CliRunner().invoke(app, ["train", str(file), "--output", str(folder / name)])
    assert result.exit_code == 0, result.exception or result.output
    return folder / name


@pytest.fixture(scope="session")
def lora_run(tmp_path_factory):
    """A LoRA on fp32 weights."""
    return train_run(tmp_path_factory.mktemp("lora"), "lora", quantization="fp32", adapter="lora")


@pytest.fixture(scope="session")
def qlora_run(tmp_path_factory):
    """A LoRA on nf4 weights."""
    return train_run(tmp_path_factory.mktemp("qlora"), "qlora", adapter="qlora")


@pytest.fixture(scope="session")
def full_run(tmp_path_factory):
    """Every parameter trained."""
    return train_run(tmp_path_factory.mktemp("full"), "full", quantization="fp32", adapter="full")


@pytest.fixture(scope="session")
def twin(tmp_path_factory):
    """Return a function that writes a tiny model of a family, once a session, and returns its folder."""
    written = {}

    def folder(name):
        if name not in written:
            written[name] = write_twin(name, tmp_path_factory.mktemp("twins") / name)
        return written[name]

    return folder


@pytest.fixture
def command():
    """Return a function that runs a command in this process, and returns what came of it."""

    from sftplug.cli import app

    def go(*arguments, input=None):
        return CliRunner().invoke(app, list(map(str, arguments)), input=input)

    return go


@pytest.fixture
def terminal():
    """Return a function that starts a command at a terminal; it is ended with the test."""
    from terminal import Terminal

    opened = []

    def start(*arguments, **how):
        opened.append(Terminal(*arguments, **how))
        return opened[-1]

    yield start
    for one in opened:
        one.end()


@pytest.fixture
def hub():
    """A Hub on this machine that keeps what it is sent; its address and what came."""
    from loopback import serving

    with serving() as server:
        yield server
