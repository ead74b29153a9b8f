"""Several processes: what is refused, what runs, that it trains what one process would, and how it ends."""

import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import TINY, rows, train_file, write_rows
from typer.testing import CliRunner

from sftplug.cli import app
from sftplug.errors import RecipeError
from sftplug.launch import launch_problems
from sftplug.recipe import load_recipe
from sftplug.recipe.load import recipes_folder

HAS_DEEPSPEED = importlib.util.find_spec("deepspeed") is not None
needs_deepspeed = pytest.mark.skipif(not HAS_DEEPSPEED, reason="DeepSpeed is not installed: sftplug[deepspeed]")

# --- what is refused --------------------------------------------------------------------------------------------------

NF4 = {"adapter": "lora", "quantization": "nf4"}
REFUSED = {
    "no count": ({"launch": "ddp"}, "launch.processes: there is no accelerator to count here"),
    "uneven": ({"launch": {"processes": 3, "nodes": 2}}, "3 processes cannot be shared evenly by 2 nodes"),
    "no address": ({"launch": {"processes": 2, "nodes": 2, "node_rank": 0}}, "give the address of the main one"),
    "no rank": ({"launch": {"processes": 2, "nodes": 2, "main_process_ip": "a"}}, "say which this is, from 0"),
    "rank": ({"launch": {"processes": 2, "nodes": 2, "node_rank": 2, "main_process_ip": "a"}}, "2 of 2 nodes; the fi"),
    "twice": (
        {"launch": {"processes": 2}, "train": {"fsdp": "full_shard"}},
        "`train.fsdp` decides the same: leave one",
    ),
    "fsdp2, nf4": ({"launch": {"strategy": "fsdp2", "processes": 2}, **NF4}, "only if quantization.storage_dtype eq"),
    "fsdp2, int8": (
        {"launch": {"strategy": "fsdp2", "processes": 2}, **NF4, "quantization": "int8"},
        "fsdp2 cannot split int8 weights, whose scales lie beside them. Use ddp or zero2.",
    ),
    "fsdp2, lora": ({"launch": {"strategy": "fsdp2", "processes": 2}, "adapter": "lora"}, "on CPUs, fsdp2 splits the"),
    "fsdp2, resume": ({"launch": {"strategy": "fsdp2", "processes": 2}}, "Set `train.save_only_model: true` or"),
    "zero3, nf4": ({"launch": {"strategy": "zero3", "processes": 2}, **NF4}, "zero3 splits weights between processes"),
}


@pytest.mark.parametrize(("sections", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_work_is_refused_before_a_process_is_started(sections, said, recipe_file):
    problems = launch_problems(load_recipe(str(recipe_file(**sections))).recipe)
    assert [problem for problem in problems if said in problem], problems


def test_more_processes_than_gpus_are_refused(recipe_file, monkeypatch):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    monkeypatch.setattr("torch.accelerator.device_count", lambda: 1)
    (problem,) = launch_problems(load_recipe(str(recipe_file(launch={"processes": 4}))).recipe)
    assert problem.startswith("launch.processes: 4 on this node, which has 1 accelerator.")


def test_deepspeed_is_asked_for_by_name(recipe_file, monkeypatch):
    monkeypatch.setattr("sftplug.launch.check.importlib.util.find_spec", lambda name: None)
    (problem,) = launch_problems(load_recipe(str(recipe_file(launch={"strategy": "zero2", "processes": 2}))).recipe)
    assert problem.endswith("pip install 'sftplug[deepspeed]'.")


def test_more_processes_than_were_started_are_refused(recipe_file, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    (problem,) = launch_problems(load_recipe(str(recipe_file(launch={"processes": 3}))).recipe)
    assert problem == "launch.processes: the recipe says 3, and the launcher has started 2."


def test_check_says_so_and_train_starts_nothing(recipe_file):
    file = str(recipe_file(launch="fsdp2"))
    for command in (["check", file], ["train", file], ["train", file, "--launch", "fsdp2"]):
        result = CliRunner().invoke(app, command)
        assert "launch.processes: there is no accelerator" in str(result.exception)
    assert not Path(load_recipe(file).recipe.output).exists()


def test_a_wrong_option_is_refused_like_any_other(recipe_file):
    with pytest.raises(RecipeError, match=r"launch\.proceses.*Did you mean 'processes'"):
        load_recipe(str(recipe_file()), ["launch.proceses=2"])
    result = CliRunner().invoke(app, ["train", str(recipe_file()), "--launch", "fsdp,processes=2"])
    assert "launch.strategy (command line)" in str(result.exception)


def test_examples_are_shell_scripts():
    scripts = sorted((recipes_folder() / "launch").iterdir())
    assert [script.name for script in scripts] == ["accelerate.sh", "slurm.sbatch", "torchrun.sh"]
    for script in scripts:
        subprocess.run(["bash", "-n", str(script)], check=True)


# --- what runs --------------------------------------------------------------------------------------------------------

ONCE = '''
"""Send this process a signal after a step, once."""
import os
from pathlib import Path
from typing import Literal

import sftplug


class Once(sftplug.Callback):
    """Send a signal to one of the processes."""

    type: Literal["once"] = "once"
    signal: int
    """Its number."""
    step: int
    """After which step."""

    def trainer_callback(self):
        from transformers import TrainerCallback

        number, step, mark = self.signal, self.step, Path(__file__).with_suffix(".mark")

        class Sender(TrainerCallback):
            def on_step_end(self, args, state, control, **kwargs):
                if state.global_step == step and os.environ.get("RANK") == "1" and not mark.exists():
                    mark.touch()
                    os.kill(os.getpid(), number)

        return Sender()


@sftplug.hookimpl
def sftplug_callbacks():
    return [Once]
'''
EXACT = {"nf4": {"compute_dtype": "float32"}}
WEIGHTED = ["assistant", {"type": "regex", "pattern": "It is", "weight": 0.25}]
JOBS = {
    # 27 rows in batches of 8: the last batch of an epoch has rows for one of the two processes only.
    "full": {},
    "lora_packed": {
        "adapter": "lora",
        "data": {"packing": "rows"},
        "train": {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 1},
    },
    "lora_nf4": {"adapter": "lora", "quantization": EXACT},
    "weights": {"masking": WEIGHTED},
}
RUNS = {
    "full_ddp": {"launch": "ddp"},
    "lora_packed_ddp": {"launch": {"processes": 2}},
    "lora_nf4_ddp": {"launch": "ddp"},
    "weights_ddp": {},
    "full_fsdp2": {"launch": "fsdp2"},
    "full_stopped": {"plugins": "./once.py", "callbacks": {"once": {"signal": 15, "step": 3}}},
}
SILENT = {"lora_packed_fsdp2": {"launch": "fsdp2"}, "full_misled": {"train": {"fsdp": "full_shard"}}}
"""What the libraries would train otherwise than asked, and say nothing."""
ZERO = {"full_zero2": "zero2", "full_zero3": "zero3", "lora_packed_zero3": "zero3", "lora_nf4_zero2": "zero2"}


def recipe(folder, name, *layers):
    """Write a recipe of all `layers`, and return its file."""
    small = {
        "model": {"build": TINY},
        "data": {"train": {"path": "rows.jsonl", "format": "messages"}, "max_length": 256},
        "chat_template": "chatml",
        "quantization": "fp32",
        "train": {
            "num_train_epochs": 2,
            "per_device_train_batch_size": 4,
            "learning_rate": 5e-3,
            "logging_steps": 1,
            "save_strategy": "no",
        },
        "output": str(folder / name),
    }
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(value, dict) and isinstance(small.get(key), dict) and key in ("data", "train")
            small[key] = {**small[key], **value} if both else value
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(small))
    return file


def job_of(name):
    return max((job for job in JOBS if name.startswith(job)), key=len)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("launch")
    write_rows(folder / "rows.jsonl", rows(27))
    (folder / "once.py").write_text(ONCE)
    return folder


@pytest.fixture(scope="module")
def two(folder):
    """Train every job in two processes that torchrun has started, one after the other; return what each said."""
    goes_on = {"full_goes_on": {**RUNS["full_stopped"], "output": str(folder / "full_stopped")}}
    zero = {name: {"launch": strategy} for name, strategy in ZERO.items()} if HAS_DEEPSPEED else {}
    runs = RUNS | goes_on | SILENT | zero
    files = [recipe(folder, name, JOBS[job_of(name)], sections) for name, sections in runs.items()]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    driver = str(Path(__file__).with_name("several.py"))
    done = subprocess.run([*command, driver, *map(str, files)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return {file.stem: [json.loads(file.with_suffix(f".{rank}.json").read_text()) for rank in (0, 1)] for file in files}


@pytest.fixture(scope="module")
def one(folder):
    """Return a function that trains a job in this process, with the batch of both, and returns what was measured."""
    done = {}

    def train(job):
        if job not in done:
            size = JOBS[job].get("train", {}).get("per_device_train_batch_size", 4)
            twice = {"train": {**JOBS[job].get("train", {}), "per_device_train_batch_size": 2 * size}}
            result = train_file(recipe(folder, f"{job}_alone", JOBS[job], twice))
            done[job] = result, measured(folder / f"{job}_alone")
        return done[job]

    return train


def measured(output):
    """Return (loss, tokens so far) of every step."""
    lines = map(json.loads, (output / "metrics.jsonl").read_text().splitlines())
    return [(line["loss"], line["num_tokens"]) for line in lines if "loss" in line]


SAME = ["full_ddp", "lora_packed_ddp", "lora_nf4_ddp", "weights_ddp", "full_fsdp2"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SAME, *(pytest.param(name, marks=needs_deepspeed) for name in ZERO)])
def test_two_processes_train_what_one_would_with_the_same_global_batch(name, two, one, folder):
    result, alone = one(job_of(name))
    steps = measured(folder / name)
    assert len(steps) == len(alone) >= 4
    assert [loss for loss, _ in steps] == pytest.approx([loss for loss, _ in alone], abs=1e-5)
    assert [tokens for _, tokens in steps] == [tokens for _, tokens in alone]
    for said in two[name]:
        assert said == {"loss": pytest.approx(result.loss, abs=1e-5), "tokens": result.tokens}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full_fsdp2", *(pytest.param(name, marks=needs_deepspeed) for name in ZERO)])
def test_weights_that_were_split_are_saved_whole(name, two, one, folder):
    from safetensors.torch import load_file

    one(job_of(name))
    file = "adapter_model.safetensors" if "lora" in name else "model.safetensors"
    alone, saved = (load_file(folder / output / file) for output in (f"{job_of(name)}_alone", name))
    for key, weight in alone.items():
        assert saved[key].shape == weight.shape
        assert (saved[key].float() - weight.float()).abs().max() < 1e-4, key


@pytest.mark.slow
def test_what_would_silently_be_something_else_is_not_trained(two, folder):
    for said in two["full_misled"]:
        assert said["error"] == "asked for fsdp in 2 processes, and ddp in 2 would run. Nothing was trained."
    for said in two["lora_packed_fsdp2"]:
        assert said["error"] == "asked for fsdp2 in 2 processes, and none in 2 would run. Nothing was trained."
    for name in SILENT:
        assert not (folder / name / "metrics.jsonl").exists()
        assert json.loads((folder / name / "run.json").read_text())["state"] == "failed"


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_after_a_checkpoint_and_the_run_goes_on(two, folder):
    output = folder / "full_stopped"
    for said in two["full_stopped"]:
        assert said["exit_code"] == 143
        assert f"interrupted by SIGTERM: checkpoint-3 is saved in {output}" in said["error"]
    assert two["full_goes_on"][0] == two["full_ddp"][0]
    assert measured(output) == measured(folder / "full_ddp")
    weights = "model.safetensors"
    assert (output / weights).read_bytes() == (folder / "full_ddp" / weights).read_bytes()


# --- as a user does it ------------------------------------------------------------------------------------------------

SFTPLUG = [sys.executable, "-m", "sftplug"]


@pytest.mark.slow
def test_a_killed_process_ends_the_run_by_name_and_two_nodes_go_on_bit_by_bit(two, folder, tmp_path, monkeypatch):
    # With nothing in it yet: two processes build the model and prepare the rows once.
    monkeypatch.setenv("SFTPLUG_CACHE", str(cache := tmp_path / "cache"))
    killed = {"plugins": "./once.py", "callbacks": {"once": {"signal": 9, "step": 5}}}
    saving = {"train": {"save_strategy": "steps", "save_steps": 2}}
    (folder / "once.mark").unlink()
    command = [*SFTPLUG, "train", str(recipe(folder, "killed", killed, saving)), "--launch"]
    done = subprocess.run([*command, f"ddp,processes=2,main_process_port={free_port()}"], **PIPES)
    assert done.returncode == 1
    assert re.search(r"^rank 1 \(process \d+\) was killed by SIGKILL\.", done.stderr, re.MULTILINE), done.stderr
    assert done.stdout.count("ddp, 2 processes on cpu over gloo; 4 rows x 2 processes = 8 rows a step") == 1
    assert done.stdout.count("step 4/8") == 1
    assert len(list((cache / "prepared").glob("*/contents.json"))) == 1
    record = json.loads((folder / "killed" / "run.json").read_text())
    assert record["state"] == "failed"
    assert record["reason"].startswith("rank 1 (process ")
    config = yaml.safe_load((folder / "killed" / "accelerate.yaml").read_text())
    assert (config["num_processes"], config["num_machines"]) == (2, 1)

    # The second node says nothing: the main process speaks for all.
    nodes = f"ddp,processes=2,nodes=2,main_process_ip=127.0.0.1,main_process_port={free_port()}"
    started = [
        subprocess.Popen([*command, nodes], env={**os.environ, "SLURM_NODEID": str(node)}, stdout=-1, stderr=-1)
        for node in (0, 1)
    ]
    said = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert b"resuming from step 4" in said[0][1]
    assert said[1][0] == b""
    assert measured(folder / "killed") == measured(folder / "full_ddp")
    weights = "model.safetensors"
    assert (folder / "killed" / weights).read_bytes() == (folder / "full_ddp" / weights).read_bytes()


PIPES = {"capture_output": True, "text": True, "timeout": 120}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
