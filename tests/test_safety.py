"""Safe by default: recipes are data, nothing calls out, code is shown before it runs, secrets are not kept."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import rows

from sftplug.errors import ModelError, RecipeError
from sftplug.models import base_model_path, load_model
from sftplug.quiet import quiet_libraries
from sftplug.recipe import load_recipe
from sftplug.redact import HIDDEN, redact, without_secrets
from sftplug.run import begin

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZ"


def sftplug(*arguments, env=None):
    return subprocess.run(
        [sys.executable, "-m", "sftplug", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, **(env or {})},
    )


# --- recipes are data -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", ["!!python/object/apply:os.system ['touch pwned']", "!!python/name:os.system", "!!python/module:os ''"]
)
def test_yaml_that_would_run_code_is_refused_and_does_not(recipe_file, tmp_path, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    file = recipe_file()
    file.write_text(file.read_text() + f"run_name: {value}\n")
    with pytest.raises(RecipeError, match=r"a recipe is plain data, and the tag .* is not"):
        load_recipe(str(file))
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("command", ["check", "explain", "train"])
def test_a_plugin_file_is_shown_before_it_runs(recipe_file, tmp_path, command):
    plugin = tmp_path / "mine.py"
    plugin.write_text("import sys\nsys.stderr.write('the plugin runs\\n')\nraise SystemExit('on purpose')\n")
    result = sftplug(command, recipe_file(plugins=["./mine.py"]))
    assert result.returncode == 2
    shown = hashlib.sha256(plugin.read_bytes()).hexdigest()
    lines = result.stderr.splitlines()
    assert lines[0] == f"running the plugin file {plugin} (sha256 {shown})"
    assert lines[1] == "the plugin runs"
    assert result.stderr.count("running the plugin file") == 1


def test_the_hash_that_is_shown_is_the_one_that_is_kept(recipe_file, tmp_path, caplog):
    plugin = tmp_path / "kept.py"
    plugin.write_text(
        "import sftplug\n\n\n@sftplug.hookimpl\ndef sftplug_recipe_loaded(recipe):\n    '''Do nothing.'''\n"
    )
    loaded = load_recipe(str(recipe_file(plugins=["./kept.py"])))
    shown = hashlib.sha256(plugin.read_bytes()).hexdigest()
    assert [item["sha256"] for item in loaded.provenance() if item["name"] == "kept"] == [shown]
    assert shown in caplog.text


# --- models -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("revision", "allowed"), [(None, False), ("main", False), ("v1.0", False), (COMMIT, True)])
def test_code_from_the_hub_is_run_at_a_commit_only(recipe_file, revision, allowed):
    file = recipe_file(model={"name_or_path": "org/name", "trust_remote_code": True, "revision": revision})
    if allowed:
        assert load_recipe(str(file)).recipe.model.revision == COMMIT
        return
    with pytest.raises(RecipeError, match=r"pin `model.revision` to a commit, 40 hexadecimal digits\.") as caught:
        load_recipe(str(file))
    assert ("branches and tags can be moved" in str(caught.value)) == (revision is not None)


@pytest.fixture
def model_folder(recipe_file, tmp_path):
    """Return a copy of the tiny model that may be changed."""
    built = base_model_path(load_recipe(str(recipe_file())).recipe)
    return Path(shutil.copytree(built, tmp_path / "model"))


def test_code_in_a_folder_is_what_stands_there(recipe_file, model_folder):
    file = recipe_file(model={"name_or_path": str(model_folder), "trust_remote_code": True})
    assert load_recipe(str(file)).recipe.model.trust_remote_code


def test_pickled_weights_are_loaded_only_when_the_recipe_says_so(recipe_file, model_folder):
    import torch
    from safetensors.torch import load_file

    weights = load_file(model_folder / "model.safetensors")
    torch.save(weights, model_folder / "pytorch_model.bin")
    (model_folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"Only safetensors are loaded: .* `model.use_safetensors: false` takes them"):
        load_model(load_recipe(str(recipe_file(model=str(model_folder)))).recipe)
    pickled = {"name_or_path": str(model_folder), "use_safetensors": False}
    model = load_model(load_recipe(str(recipe_file(model=pickled))).recipe)
    name, first = next(iter(weights.items()))
    assert torch.equal(model.state_dict()[name], first)


# --- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://user:pw@host/x.jsonl", "https://host/x.jsonl"),
        (f"token {TOKEN}.", f"token {HIDDEN}."),
        ("https://h/x?token=abc&b=1", f"https://h/x?token={HIDDEN}&b=1"),
        ("https://h/x?X-Amz-Signature=abc", f"https://h/x?X-Amz-Signature={HIDDEN}"),
        ("sk-abcdefghijklmnopqrstuvwx", HIDDEN),
        (
            "<|im_start|>user@example.org pad_token hf_model C:/a@b",
            "<|im_start|>user@example.org pad_token hf_model C:/a@b",
        ),
    ],
)
def test_what_looks_like_a_secret_is_left_out(text, expected):
    assert redact(text) == expected


def test_values_whose_names_say_that_they_are_secret_are_left_out():
    data = {"hub_token": "x", "pad_token": "<pad>", "a": [{"api_key": "y"}, "https://u:p@h"], "n": 1}
    assert without_secrets(data) == {
        "hub_token": HIDDEN,
        "pad_token": "<pad>",
        "a": [{"api_key": HIDDEN}, "https://h"],
        "n": 1,
    }


def test_no_secret_is_in_what_is_printed_or_in_the_folder_or_the_report(recipe_file, tmp_path):
    password = "pa55w0rd"
    url = f"http://user:{password}@localhost:9/rows.jsonl?token=s3cr3t"
    file = recipe_file(
        data={"train": {"path": url, "format": "messages"}}, train={"hub_token": TOKEN, "run_name": f"by {TOKEN}"}
    )
    recipe = yaml.safe_load(file.read_text())
    recipe["data"] = {"train": {"path": url, "format": "messages"}}
    file.write_text(yaml.safe_dump(recipe))
    result = sftplug("train", file, env={"HF_TOKEN": TOKEN, "WANDB_API_KEY": password})
    assert result.returncode == 2, result.stderr
    assert "localhost" in result.stderr
    report = sftplug("report", tmp_path / "out", "--html", tmp_path / "page.html")
    assert report.returncode == 0, report.stderr
    kept = [path.read_text() for path in [*(tmp_path / "out").rglob("*.*"), tmp_path / "page.html"] if path.is_file()]
    assert len(kept) > 4
    for text in (result.stdout, result.stderr, report.stdout, *kept):
        assert password not in text
        assert "s3cr3t" not in text
        assert TOKEN not in text


def test_an_error_that_is_kept_holds_no_secret(recipe_file):
    loaded = load_recipe(str(recipe_file()))
    with pytest.raises(ModelError), begin(loaded, overwrite=True) as attempt:
        raise ModelError(f"cannot reach https://me:pw@host with {TOKEN}")
    assert attempt.directory.state().reason == f"ModelError: cannot reach https://host with {HIDDEN}"


# --- nothing calls out ------------------------------------------------------------------------------------------------


def test_usage_pings_are_off_unless_the_user_turns_them_on(monkeypatch):
    for name in ("HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
    quiet_libraries()
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == os.environ["DO_NOT_TRACK"] == "1"
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "0")
    quiet_libraries()
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "0"


def test_nothing_is_reported_to_a_service_by_default(recipe_file):
    from sftplug.training import training_arguments

    assert training_arguments(load_recipe(str(recipe_file())).recipe).report_to == []


BLOCK = """
import socket, traceback

def refuse(name, inner=None):
    def call(*args, **kwargs):
        address = args[1] if inner and len(args) > 1 else args[0] if args else None
        if inner and isinstance(address, (str, bytes)):
            return inner(*args, **kwargs)  # a socket of the machine's own
        with open({log!r}, "a") as file:
            file.write(name + repr(address) + "".join(traceback.format_stack()))
        raise OSError("no network")
    return call

socket.socket.connect = refuse("connect", socket.socket.connect)
socket.socket.connect_ex = refuse("connect_ex", socket.socket.connect_ex)
socket.getaddrinfo = refuse("getaddrinfo")
"""
DRIVER = """
import json, sys
from sftplug.cli import app

for command in json.loads(sys.argv[1]):
    print("$", *command, flush=True)
    try:
        app(command, standalone_mode=False)
    except SystemExit as ended:
        assert not ended.code, ended.code
    if command[0] == "train" and "--resume" not in command:  # as a run that was killed leaves it
        import pathlib, shutil
        out = pathlib.Path(sys.argv[2])
        shutil.rmtree(out / "checkpoint-4")
        state = json.loads((out / "run.json").read_text())
        (out / "run.json").write_text(json.dumps({**state, "state": "running"}))
print("done")
"""


def test_with_sockets_blocked_everything_on_local_paths_works(recipe_file, model_folder, tmp_path):
    log = tmp_path / "calls"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(BLOCK.format(log=str(log)))
    train = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "per_device_train_batch_size": 4}
    file = recipe_file(model=str(model_folder), data=rows(24), train=train, adapter="lora")
    out, held_out = str(tmp_path / "out"), "data.eval_fraction=0.2"
    commands = [
        ["check", str(file), held_out],
        ["preview", str(file), "--html", str(tmp_path / "rows.html")],
        ["prepare", str(file), "--output", str(tmp_path / "prepared")],
        ["plan", str(file)],
        ["train", str(file), held_out],
        ["train", str(file), held_out, "--resume"],
        ["eval", out],
        ["report", out, "--html", str(tmp_path / "page.html")],
    ]
    online = {
        name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
    }
    result = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(commands), out],
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
        env={**online, "PYTHONPATH": str(tmp_path / "site")},
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert result.stdout.endswith("done\n")
    assert "resuming from step 2" in result.stderr
    assert not log.exists(), log.read_text()[:5000]
