"""Run many small trainings in a process that may die, and keep what came of each: used by the sweeps beside it."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import queue
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

TIMEOUT = 600
"""Seconds that one run may take; some libraries compile a kernel at first use."""
ANSWER = "answer: "
TOLERANCE = 1e-3
"""Two sets of logits are equal when they differ by no more than this, relative to the largest of them."""
DEPENDS = re.compile(
    r"same dtype|cuda|triton|\bgpu|\bcpu|xpu|accelerator|kernel|import|install|no module"
    r"|quantized with it before|loss|lm_head",
    re.IGNORECASE,
)
"""A reason that may not hold elsewhere: GPUs train under autocast, which does away with mixed types; a package may be
there; another learning rate may do."""
WATCH = """
import sftplug

trainers = []


@sftplug.hookimpl
def sftplug_trainer_created(recipe, trainer):
    trainers.append(trainer)
"""


def built_in(kind: type, names: Iterable[str]) -> dict[str, Any]:
    """Return name -> class of the components of a kind that sftplug comes with; with `names`, of these only."""
    import sftplug

    offers = sftplug.load("quickstart").registry.offers[kind]  # any recipe knows all that is installed
    own = {name: offer.component for name, offer in offers.items() if offer.plugin.distribution == "sftplug"}
    return {name: component for name, component in own.items() if not names or name in names}


# --- the process that may die -----------------------------------------------------------------------------------------


def run_all(script: str, jobs: Iterable[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield (job, what came of it) for each job, run by ``python SCRIPT --worker``; that is started anew if it dies."""
    worker = None
    for job in jobs:
        if worker is None or worker.poll() is not None:
            worker = _start(script)
        answer = _ask(worker, job)
        if answer is None:
            answer = {"reason": f"the process died (exit status {worker.wait()})", "depends": True}
        yield job, {"loads": False, **answer}
    if worker is not None:
        worker.kill()


def _start(script: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-W", "ignore", script, "--worker"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def _ask(worker: subprocess.Popen[str], job: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the worker's answer; None if it died, or has none after `TIMEOUT` seconds."""
    answers: queue.Queue[str] = queue.Queue()
    assert worker.stdin is not None
    worker.stdin.write(json.dumps(job) + "\n")
    worker.stdin.flush()
    threading.Thread(target=lambda: answers.put(_answer_of(worker)), daemon=True).start()
    try:
        line = answers.get(timeout=TIMEOUT)
    except queue.Empty:
        worker.kill()
        worker.wait()
        return {"reason": f"no end in {TIMEOUT} s", "depends": True}
    return json.loads(line) if line else None


def _answer_of(worker: subprocess.Popen[str]) -> str:
    """Return the next line that is an answer: some libraries print while they are imported."""
    assert worker.stdout is not None
    return next((line.removeprefix(ANSWER) for line in worker.stdout if line.startswith(ANSWER)), "")


def work(do: Callable[[dict[str, Any], Path], dict[str, Any]]) -> None:
    """Answer jobs from standard input, a line each; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        with tempfile.TemporaryDirectory() as folder:
            print(f"{ANSWER}{json.dumps(do(json.loads(line), Path(folder)))}", file=answers, flush=True)


# --- one run ----------------------------------------------------------------------------------------------------------


def try_out(sections: Mapping[str, Any], folder: Path, *, merge: bool = True) -> dict[str, Any]:
    """Train as a recipe says, save, reload and merge; return how far it came, with the reason where it stopped.

    ``loads``: the model with its adapter; ``trains``: the loss on one batch falls by 2 %; ``reloads`` and ``merges``:
    the logits are those of the model in memory.
    """
    found: dict[str, Any] = {"loads": False}
    try:
        for stage in _stages(sections, folder, merge):
            found.update(stage)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        stage = next((name for name in ("loads", "trains", "reloads", "merges") if found.get(name) is not True), "")
        found.update({stage: False, "reason": _first_line(error)})
    if DEPENDS.search(found.get("reason", "")):
        found["depends"] = True
    return found


def _stages(sections: Mapping[str, Any], folder: Path, merge: bool) -> Iterator[dict[str, Any]]:
    import sftplug

    _measure_ourselves()
    loaded = sftplug.load(_recipe(sections, folder))
    trainers = loaded.registry.plugins.loaded["watch"].module.trainers
    trainers.clear()
    try:
        result = sftplug.train(loaded, overwrite=True, show=False)
    finally:
        if trainers:
            yield {"loads": True}
    losses = [entry["loss"] for entry in result.log if "loss" in entry]
    falls = losses[-1] < 0.98 * losses[0]
    if not falls:
        yield {"reason": f"the loss does not fall: {losses[0]:.3f} -> {losses[-1]:.3f}"}
    yield {
        "trains": falls,
        "losses": [round(losses[0], 3), round(losses[-1], 3)],
        "trained": result.size.trainable,
        "targets": _last_names(getattr(trainers[0].model, "targeted_module_names", [])),
    }
    model = trainers[0].model
    logits = _logits(model)
    yield _equal("reloads", logits, _logits(_reloaded(loaded.recipe, result.output)))
    if merge and hasattr(model, "merge_and_unload"):
        yield _equal("merges", logits, _logits(model.merge_and_unload()))


def _measure_ourselves() -> None:
    """Let a run go on where it would be refused because what it saves is not read back: that is what is measured."""
    from sftplug.training import train as training

    training.try_to_save = training.read_back = lambda *_: None


def _recipe(sections: Mapping[str, Any], folder: Path) -> Path:
    """Write a recipe of eight rows in one batch: the loss of a step depends on nothing but the weights."""
    import yaml

    (folder / "watch.py").write_text(WATCH, encoding="utf-8")
    words = ("red", "green", "blue", "north", "south", "iron", "gold", "seven")
    rows = [[("user", f"Which is {n}?"), ("assistant", f"It is {word}.")] for n, word in enumerate(words)]
    messages = [[{"role": role, "content": content} for role, content in row] for row in rows]
    lines = [json.dumps({"messages": row}) + "\n" for row in messages]
    (folder / "rows.jsonl").write_text("".join(lines), encoding="utf-8")
    recipe = {
        "plugins": ["./watch.py"],
        "model": {"build": {"type": "tiny", "pretrain_steps": 100, "layers": 2, "hidden_size": 64}},
        "data": {"train": {"path": "rows.jsonl", "format": "messages"}},
        "chat_template": "chatml",
        **sections,
        "train": {
            "max_steps": 30,
            "per_device_train_batch_size": 8,
            "logging_steps": 1,
            "save_strategy": "no",
            "lr_scheduler_type": "constant",
            **sections.get("train", {}),
        },
        "output": str(folder / "out"),
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return folder / "recipe.yaml"


def _reloaded(recipe: Any, output: Path) -> Any:
    """Return the saved model as a user would load it: the base in the same numbers, the adapter on it."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from sftplug.model.loading import base_model_path

    kwargs = recipe.quantization.load_kwargs()
    if recipe.adapter.peft_config() is None:
        return AutoModelForCausalLM.from_pretrained(output, **kwargs)
    base = AutoModelForCausalLM.from_pretrained(base_model_path(recipe), **kwargs)
    recipe.quantization.prepare_model(base)
    return PeftModel.from_pretrained(base, output)


def _logits(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(5, 25)[None]).logits.float()


def _equal(stage: str, expected: Any, got: Any) -> dict[str, Any]:
    difference = float((expected - got).abs().max()) / max(1.0, float(expected.abs().max()))
    answer: dict[str, Any] = {stage: difference <= TOLERANCE, f"{stage}_difference": float(f"{difference:.1e}")}
    if difference > TOLERANCE:
        answer["reason"] = (
            f"logits of the {'merged' if stage == 'merges' else 'reloaded'} model differ by {difference:.1e}"
        )
    return answer


def _last_names(modules: Iterable[str]) -> list[str]:
    return sorted({module.rpartition(".")[2] for module in modules})


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    text = lines[1] if len(lines) > 1 and lines[0].endswith((":", "problem", "problems")) else lines[0]
    text = re.sub(r"^\S+ \(recipe\.yaml:\d+\): ", "", text)  # where the sweep's own recipe has it
    text = re.sub(r"^the model \S+ cannot be loaded as \S+: ", "", text)
    return text[:300] if type(error).__module__.startswith("sftplug") else f"{type(error).__name__}: {text}"[:300]


def try_to_resume(sections: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Train to the end, and once more from a checkpoint halfway; return whether both are the same, bit for bit.

    ``resumes``: the losses, the gradient norms and the saved weights are. Nothing is shared between the two but the
    folder of the run: model, adapter and trainer are made again, as in a process of their own.
    """
    import shutil

    from sftplug import RunDirectory

    steps = int(sections.get("train", {}).get("max_steps", RESUMED_STEPS))
    saving = {"max_steps": steps, "save_strategy": "steps", "save_steps": steps // 2, "save_total_limit": 2}
    file = _recipe({**sections, "train": {**sections.get("train", {}), **saving}}, folder)
    output = folder / "out"
    try:
        _train(file)
        whole = _outcome(output)
        shutil.rmtree(output / f"checkpoint-{steps}")
        state = json.loads((output / "run.json").read_text())
        (output / "run.json").write_text(json.dumps({**state, "state": "running"}))  # as a kill leaves it
        _train(file)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return {"resumes": False, "reason": _first_line(error)}
    assert RunDirectory.open(output).state().attempts[-1]["from_step"] == steps // 2
    differ = [what for what, value in _outcome(output).items() if value != whole[what]]
    return {"resumes": not differ} | ({"reason": f"other {' and '.join(differ)}"} if differ else {})


RESUMED_STEPS = 8


def _train(file: Path) -> None:
    import sftplug

    _measure_ourselves()
    sftplug.train(file, show=False)


def _outcome(output: Path) -> dict[str, Any]:
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    measured = [{name: line.get(name) for name in ("step", "loss", "grad_norm")} for line in lines]
    weights = [hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(output.glob("*.safetensors"))]
    return {"losses": measured, "weights": weights}


# --- the record -------------------------------------------------------------------------------------------------------


def versions(*distributions: str) -> dict[str, str]:
    """Return the installed versions; a distribution that is not installed is left out."""
    found = {}
    for name in distributions:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write_record(file: Path, **parts: Any) -> None:
    """Write what was measured, with day and machine."""
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, no GPU"
    record = {"date": datetime.datetime.now(datetime.UTC).date().isoformat(), "machine": machine, **parts}
    file.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
