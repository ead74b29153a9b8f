"""Several processes: what is refused, what runs, that it trains what one process would, and how it ends."""

import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import TINY, rows, train_file, write_rows
from patience import finish
from run.children import start
from several import train_all
from typer.testing import CliRunner

import sftplug
from sftplug.cli import app
from sftplug.errors import RecipeError, RunError
from sftplug.launch import launch_problems, refuse_other_processes
from sftplug.recipe import load_recipe
from sftplug.recipe.find import recipes_folder
from sftplug.run import Checkpoint

HAS_DEEPSPEED = importlib.util.find_spec("deepspeed") is not None and shutil.which("c++") is not None
needs_deepspeed = pytest.mark.needs(
    "sftplug[deepspeed], and a C++ compiler for the part that DeepSpeed builds when it starts", there=HAS_DEEPSPEED
)

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
    "fsdp2, nf4": (
        {"launch": {"strategy": "fsdp2", "processes": 2}, **NF4},
        "fsdp2 splits nf4 weights only if quantization.storage_dtype (uint8) equals quantization.compute_dtype "
        "(bfloat16). Set both to bfloat16, or use ddp or zero2.",
    ),
    "fsdp2, int8": (
        {"launch": {"strategy": "fsdp2", "processes": 2}, **NF4, "quantization": "int8"},
        "fsdp2 cannot split int8 weights, whose scales lie beside them. Use ddp or zero2.",
    ),
    "fsdp2, resume": ({"launch": {"strategy": "fsdp2", "processes": 2}}, "Set `train.save_only_model: true`, or"),
    "fsdp2, adafactor": (
        {"launch": {"strategy": "fsdp2", "processes": 2}, "train": {"optim": "adafactor", "save_strategy": "no"}},
        "launch.strategy: fsdp2 holds what is trained in pieces, on which `train.optim: adafactor` fails at once",
    ),
    "zero3, nf4": ({"launch": {"strategy": "zero3", "processes": 2}, **NF4}, "zero3 splits weights between processes"),
}


@pytest.mark.parametrize(("sections", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_work_is_refused_before_a_process_is_started(sections, said, recipe_file):
    problems = launch_problems(load_recipe(str(recipe_file(**sections))).recipe)
    assert [problem for problem in problems if said in problem], problems


def test_an_optimizer_that_fails_on_pieces_is_refused_where_there_are_some(recipe_file, monkeypatch):
    """Tried with each of them in two processes: on CPUs an adapter is whole in each, all else is in pieces."""

    def problems(name, adapter):
        sections = {"launch": {"strategy": "fsdp2", "processes": 2}, "adapter": adapter}
        file = recipe_file(train={"optim": name, "save_strategy": "no", "max_steps": 1}, **sections)
        return [text for text in launch_problems(load_recipe(str(file)).recipe) if f"`train.optim: {name}`" in text]

    fail = ["adafactor", "adamw_8bit", "adamw_bnb_8bit", "paged_adamw_32bit", "lion_8bit", "paged_lion_32bit"]
    for name in [*fail, "ademamix"]:
        assert problems(name, "full")
        assert problems(name, "lora") == []
    for name in ("adamw_torch", "adamw_torch_fused", "sgd", "rmsprop", "adagrad", "adamw_torch_8bit"):
        assert problems(name, "full") == []
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    monkeypatch.setattr("torch.accelerator.device_count", lambda: 2)
    assert problems("adamw_8bit", "lora")


TRAINABLE = {
    "fsdp2, lora": {"adapter": "lora"},
    "fsdp2, nf4 in the type computed in": {
        "adapter": "lora",
        "quantization": {"nf4": {"compute_dtype": "bfloat16", "storage_dtype": "bfloat16"}},
    },
}


@pytest.mark.parametrize("gpus", [0, 2])
@pytest.mark.parametrize("sections", TRAINABLE.values(), ids=TRAINABLE)
def test_fsdp2_takes_adapters_on_cpus_and_gpus(sections, gpus, recipe_file, monkeypatch):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: gpus > 0)
    monkeypatch.setattr("torch.accelerator.device_count", lambda: gpus)
    launch = {"strategy": "fsdp2", "processes": 2}
    assert launch_problems(load_recipe(str(recipe_file(launch=launch, **sections))).recipe) == []


def test_fsdp2_on_cpus_needs_a_transformers_that_does_it(recipe_file, monkeypatch):
    monkeypatch.setattr("sftplug.launch.check.version", lambda name: "5.18.0")
    launch = {"strategy": "fsdp2", "processes": 2}
    (problem,) = launch_problems(load_recipe(str(recipe_file(launch=launch, adapter="lora"))).recipe)
    assert problem.endswith("fsdp2 is done by transformers, from 5.19 on; this is 5.18.0. Use ddp.")


def test_more_processes_than_gpus_are_refused(recipe_file, monkeypatch):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    monkeypatch.setattr("torch.accelerator.device_count", lambda: 1)
    (problem,) = launch_problems(load_recipe(str(recipe_file(launch={"processes": 4}))).recipe)
    assert problem.startswith("launch.processes: 4 on this node, which has 1 accelerator.")


def test_deepspeed_is_asked_for_by_name(recipe_file, monkeypatch):
    monkeypatch.setattr("sftplug.launch.check.importlib.util.find_spec", lambda name: None)
    file = recipe_file(launch={"strategy": "zero2", "processes": 2})
    (problem,) = launch_problems(load_recipe(str(file)).recipe)
    assert problem.endswith("pip install 'sftplug[deepspeed]'.")
    monkeypatch.setattr("sftplug.launch.check.importlib.util.find_spec", lambda name: name)
    monkeypatch.setenv("CXX", "no-such-compiler")
    (problem,) = launch_problems(load_recipe(str(file)).recipe)
    assert "there is no C++ compiler (no-such-compiler). Install one, such as g++, or use ddp or fsdp2." in problem


def test_more_processes_than_were_started_are_refused(recipe_file, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    (problem,) = launch_problems(load_recipe(str(recipe_file(launch={"processes": 3}))).recipe)
    assert problem == "launch.processes: the recipe says 3, and the launcher has started 2."


OTHERS = {
    "count": ({"processes": 4, "strategy": "ddp"}, "4 processes (ddp), and 2 processes (ddp)", "ddp,processes=4"),
    "strategy": ({"processes": 2, "strategy": "zero2"}, "2 processes (zero2), and 2 processes (ddp)", "zero2,proc"),
    "alone": ({"processes": 1, "strategy": "none"}, "1 process, and 2 processes (ddp)", "no --launch"),
}


@pytest.mark.parametrize(("progress", "said", "how"), OTHERS.values(), ids=OTHERS)
def test_other_processes_than_wrote_a_checkpoint_do_not_go_on(progress, said, how, recipe_file, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    recipe = load_recipe(str(recipe_file())).recipe
    with pytest.raises(RunError, match=re.escape(f"checkpoint-3 was written by {said} would resume")) as refused:
        refuse_other_processes(recipe, Checkpoint(Path("checkpoint-3"), 3, progress))
    assert f"Go on with {'' if how == 'no --launch' else '--launch '}{how}" in str(refused.value)
    refuse_other_processes(recipe, Checkpoint(Path("checkpoint-3"), 3, {"processes": 2, "strategy": "ddp"}))


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


def test_torchrun_and_accelerate_train_in_two_processes_by_the_shipped_scripts(recipe_file, tmp_path):
    recipe = str(
        recipe_file(launch="ddp", train={"max_steps": 2, "per_device_train_batch_size": 2, "logging_steps": 1})
    )
    first, second = tmp_path / "torchrun", tmp_path / "accelerate"
    for script, *given in (
        ("torchrun.sh", recipe, "2", f"output={first}"),
        # The file that the first run leaves says how to start it again.
        ("accelerate.sh", str(first / "accelerate.yaml"), recipe, f"output={second}"),
    ):
        beside = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        command = ["sh", str(recipes_folder() / "launch" / script), *given]
        done = subprocess.run(command, env=beside, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "ddp, 2 processes on cpu over gloo; 2 rows x 2 processes = 4 rows a step" in done.stdout
    losses = [re.findall(r'"loss": ([0-9.]+)', (run / "metrics.jsonl").read_text()) for run in (first, second)]
    assert losses[0] == losses[1] != []


ONCE = '''
"""Stop this process after a step, once."""
import os
from pathlib import Path
from typing import Literal

import sftplug


class Once(sftplug.Callback):
    """Send a signal to one of the processes, or raise an error in it."""

    type: Literal["once"] = "once"
    after: dict[str, int]
    """Step -> number of the signal; 0 for an error."""

    def trainer_callback(self):
        from transformers import TrainerCallback

        after = self.after

        class Stopper(TrainerCallback):
            def on_step_end(self, args, state, control, **kwargs):
                step = str(state.global_step)
                mark = Path(f"{args.output_dir}.{step}")
                if step in after and os.environ.get("RANK") == "1" and not mark.exists():
                    mark.touch()
                    if not after[step]:
                        raise ValueError(f"no luck after step {step}")
                    os.kill(os.getpid(), after[step])

        return Stopper()


@sftplug.hookimpl
def sftplug_callbacks():
    return [Once]
'''
EXACT = {"nf4": {"compute_dtype": "float32", "storage_dtype": "float32"}}
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
    "kl": {"masking": WEIGHTED, "adapter": "lora", "loss": {"kl_to_base": 0.5}},
    "teacher": {"masking": WEIGHTED, "loss": {"type": "distill", "teacher": "./teacher", "temperature": 2.0}},
    "chunked": {
        "masking": WEIGHTED,
        "loss": {"type": "cross_entropy", "head": "chunked"},
        "train": {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 1},
    },
    "focal": {"loss": "focal"},
}
STOP = {"plugins": "./once.py", "callbacks": {"once": {"after": {"3": 15}}}}
RUNS = {
    "full_ddp": {"launch": "ddp"},
    "lora_packed_ddp": {"launch": {"processes": 2}},
    "lora_nf4_ddp": {"launch": "ddp"},
    "weights_ddp": {},
    "kl_ddp": {},
    "teacher_ddp": {},
    "chunked_ddp": {},
    "focal_fsdp2": {"launch": "fsdp2"},
    "full_fsdp2": {"launch": "fsdp2"},
    "lora_packed_fsdp2": {"launch": "fsdp2"},
    "lora_nf4_fsdp2": {"launch": "fsdp2"},
}
ZERO = {"full_zero2": "zero2", "full_zero3": "zero3", "lora_packed_zero3": "zero3", "lora_nf4_zero2": "zero2"}
MISLED = {"train": {"fsdp": "full_shard"}}
"""What the libraries would train otherwise than asked, and say nothing."""
STOPPED = ["full_ddp", "lora_nf4_fsdp2"]
STOPPED_ZERO = ["full_zero3", "lora_nf4_zero2"]
"""What is stopped after its third step, and goes on; these are runs of `RUNS` and `ZERO` too."""


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
    write_teacher(folder / "teacher", folder / "rows.jsonl")
    return folder


def write_teacher(folder, rows_file):
    """Write a wider model that reads the same tokens; nobody has taught it anything."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from sftplug.model.loading import base_model_path

    data = {"train": {"path": str(rows_file), "format": "messages"}}
    model = base_model_path(sftplug.load({"model": {"build": TINY}, "data": data}).recipe)
    config = AutoConfig.from_pretrained(model)
    config.hidden_size *= 2
    torch.manual_seed(3)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)


@pytest.fixture(scope="module")
def two(folder):
    """Train every job in two processes, one after the other; return what each said."""
    runs = {**RUNS, **({name: {"launch": strategy} for name, strategy in ZERO.items()} if HAS_DEEPSPEED else {})}
    stopped = [*STOPPED, *(STOPPED_ZERO if HAS_DEEPSPEED else [])]
    files = [recipe(folder, name, JOBS[job_of(name)], sections) for name, sections in runs.items()]
    files.append(recipe(folder, "full_misled", MISLED))
    files.append(recipe(folder, "weights_ddp_left", JOBS["weights"], STOP))
    for name in stopped:
        job, output = JOBS[job_of(name)], {"output": str(folder / f"{name}_stopped")}
        files.append(recipe(folder, f"{name}_stopped", job, runs[name], STOP))
        files.append(recipe(folder, f"{name}_goes_on", job, runs[name], STOP, output))
    return train_all(files, free_port())


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


FSDP2 = [name for name in RUNS if "fsdp2" in name]
ZERO_PARAMS = [pytest.param(name, marks=needs_deepspeed) for name in ZERO]


def measured(output):
    """Return (loss, tokens so far) of every step."""
    lines = map(json.loads, (output / "metrics.jsonl").read_text().splitlines())
    return [(line["loss"], line["num_tokens"]) for line in lines if "loss" in line]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*RUNS, *ZERO_PARAMS])
def test_two_processes_train_what_one_would_with_the_same_global_batch(name, two, one, folder):
    result, alone = one(job_of(name))
    told, steps = two[name], measured(folder / name)
    assert len(steps) == len(alone) >= 4
    assert [loss for loss, _ in steps] == pytest.approx([loss for loss, _ in alone], abs=1e-5)
    assert [tokens for _, tokens in steps] == [tokens for _, tokens in alone]
    for said in told:
        assert said == {"loss": pytest.approx(result.loss, abs=1e-5), "tokens": result.tokens}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FSDP2, *ZERO_PARAMS])
def test_weights_that_were_split_are_saved_whole(name, two, one, folder):
    from safetensors.torch import load_file

    one(job_of(name))
    assert two[name]
    file = "adapter_model.safetensors" if "lora" in name else "model.safetensors"
    alone, saved = (load_file(folder / output / file) for output in (f"{job_of(name)}_alone", name))
    for key, weight in alone.items():
        assert saved[key].shape == weight.shape
        assert (saved[key].float() - weight.float()).abs().max() < 1e-4, key


@pytest.mark.slow
def test_what_would_silently_be_something_else_is_not_trained(two, folder):
    for said in two["full_misled"]:
        assert said["error"] == "asked for fsdp in 2 processes, and ddp in 2 would run. Nothing was trained."
    assert not (folder / "full_misled" / "metrics.jsonl").exists()
    assert json.loads((folder / "full_misled" / "run.json").read_text())["state"] == "failed"


@pytest.mark.slow
@pytest.mark.parametrize("name", [*STOPPED, *(pytest.param(name, marks=needs_deepspeed) for name in STOPPED_ZERO)])
def test_a_signal_to_one_process_stops_all_after_a_checkpoint_and_the_run_goes_on(name, two, folder):
    output = folder / f"{name}_stopped"
    for said in two[f"{name}_stopped"]:
        assert said.get("exit_code") == 143, said
        assert f"interrupted by SIGTERM: checkpoint-3 is saved in {output}" in said["error"]
    assert two[f"{name}_goes_on"] == two[name]
    assert measured(output) == measured(folder / name)
    weights = "adapter_model.safetensors" if "lora" in name else "model.safetensors"
    assert (output / weights).read_bytes() == (folder / name / weights).read_bytes()


@pytest.mark.slow
def test_another_number_of_processes_does_not_go_on(two, folder):
    left = folder / "weights_ddp_left"
    with pytest.raises(RunError, match="checkpoint-3 was written by 2 processes \\(ddp\\), and 1 process would resume"):
        train_file(left.with_suffix(".yaml"), overwrite=False)
    assert (left / "checkpoint-3" / "sealed.json").is_file()


# --- as a user does it ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_ends_one_process_ends_all_by_name_and_two_nodes_go_on_bit_by_bit(two, folder, tmp_path):
    # With nothing in it yet: two processes build the model and prepare the rows once.
    cache, output = tmp_path / "cache", folder / "ended"
    ends = {"plugins": "./once.py", "callbacks": {"once": {"after": {"3": 0, "5": 9}}}}
    file = recipe(folder, "ended", ends, {"train": {"save_strategy": "steps", "save_steps": 2}})

    def train(launch, node=""):
        return launched(file, launch, tmp_path / f"log{node}", SFTPLUG_CACHE=str(cache), SLURM_NODEID=str(node))

    # An error in one process: its rank and traceback, once.
    said, reason = failed_in(output, *train(f"ddp,processes=2,main_process_port={free_port()}"))
    assert said.count("ddp, 2 processes on cpu over gloo; 4 rows x 2 processes = 8 rows a step") == 1
    # The callback's own traceback, and the error that says whose it is, each once.
    assert said.count("Traceback (most recent call last)") == said.count("ValueError: no luck after step 3") == 2, said
    assert re.search(
        r"^rank 1 \(process \d+ on .+\) failed:\nTraceback(?s:.*) callback 'once' of plugin once", said, re.M
    ), said
    assert reason.startswith("rank 1 (process ")
    assert len(list((cache / "prepared").glob("*/contents.json"))) == 1
    config = yaml.safe_load((output / "accelerate.yaml").read_text())
    assert (config["num_processes"], config["num_machines"]) == (2, 1)

    # One process would be another run.
    refused = CliRunner().invoke(app, ["train", str(file)])
    assert "an unfinished run of another recipe:\n  launch.strategy: 'ddp' ->" in str(refused.exception)

    # A process that is killed.
    said, reason = failed_in(output, *train(f"ddp,processes=2,main_process_port={free_port()}"))
    assert "resuming from step 2" in said
    assert re.search(r"^rank 1 \(process \d+\) was killed by SIGKILL\.", said, re.MULTILINE), said
    assert said.count("step 4/8") == 1
    assert "Traceback" not in said
    assert reason.startswith("rank 1 (process ")

    # The second node says nothing of the run: the main process speaks for all.
    nodes = f"ddp,processes=2,nodes=2,main_process_ip=127.0.0.1,main_process_port={free_port()}"
    started = [train(nodes, node) for node in (0, 1)]
    for process, log in started:
        finish([process], said=log.read_text)
        assert process.exitcode == 0, log.read_text()
    assert "resuming from step 4" in started[0][1].read_text()
    assert "step 8/8" in started[0][1].read_text()
    assert "step " not in started[1][1].read_text()
    assert measured(output) == measured(folder / "full_ddp")
    weights = "model.safetensors"
    assert (output / weights).read_bytes() == (folder / "full_ddp" / weights).read_bytes()


def launched(file, launch, log, **environment):
    """Start ``sftplug train --launch``, its libraries imported already; return the process, and where it speaks."""
    return start(["train", file, "--launch", launch], log, {"OMP_NUM_THREADS": "1", **environment}), log


def failed_in(output, process, log):
    """Wait for a run that fails; return what was said, and what the record says."""
    finish([process], said=log.read_text)
    assert process.exitcode == 1
    record = json.loads((output / "run.json").read_text())
    assert record["state"] == "failed"
    return log.read_text(), record["reason"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
