"""What is evaluated, saved and resumed is right, though there are two sets of weights."""

from pathlib import Path
from typing import Any, Literal

import pytest
import schedulefree
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

import sftplug
from sftplug.testing import check_optimizer
from sftplug_schedule_free import ScheduleFree

TRAIN = {
    "max_steps": 4,
    "per_device_train_batch_size": 2,
    "learning_rate": 3e-2,
    "warmup_steps": 1,
    "logging_steps": 1,
    "save_strategy": "steps",
    "save_steps": 2,
    "save_total_limit": 0,
    "eval_strategy": "steps",
    "eval_steps": 2,
}
SEEN: dict[str, Any] = {}
"""What a callback has seen of the run."""


class Watch(sftplug.Callback):
    """Keep the weights at the last update and at the last evaluation, and stop a run as if it were killed."""

    type: Literal["watch"] = "watch"

    def trainer_callback(self) -> Any:
        """Return it."""

        class Watching(TrainerCallback):
            def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
                SEEN["taken"] = _weights(model)

            def on_evaluate(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
                SEEN["evaluated"] = _weights(model)

            def on_step_end(self, args: Any, state: Any, control: Any, optimizer: Any = None, **more: Any) -> None:
                inner = getattr(optimizer, "optimizer", optimizer)
                SEEN["state"] = {name: inner.state[value]["z"].clone() for name, value in _named(more["model"])}
                if state.global_step == SEEN.get("stop at"):
                    raise RuntimeError("killed")

        return Watching()


def _named(model: Any) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in model.named_parameters() if value.requires_grad]


def _weights(model: Any) -> dict[str, Any]:
    return {name: value.detach().clone() for name, value in _named(model)}


@pytest.fixture
def recipe(tmp_path: Path) -> dict[str, Any]:
    """Return a recipe that trains LoRA on a small model, with the optimizer."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"text": "{color}, {number}, and so on"}}\n' for color in "abc" for number in range(4)))
    SEEN.clear()
    return {
        "model": {"build": {"type": "tiny", "pretrain_steps": 0, "layers": 1, "hidden_size": 32}},
        "data": {"train": {"path": str(rows), "format": "text"}, "eval_fraction": 0.25},
        "masking": "all",
        "quantization": "fp32",
        "adapter": "lora",
        "optimizer": "schedule_free",
        "callbacks": Watch(),
        "train": dict(TRAIN),
        "output": str(tmp_path / "run"),
    }


def test_it_keeps_the_laws_of_optimizers() -> None:
    check_optimizer(ScheduleFree)
    check_optimizer(ScheduleFree, beta1=0.95, r=1.0, weight_lr_power=0.0)


def test_it_is_the_library_s_with_the_options_of_the_recipe(recipe: dict[str, Any]) -> None:
    recipe["optimizer"] = ScheduleFree(beta1=0.8, beta2=0.99, epsilon=1e-6, r=1.0, weight_lr_power=1.0)
    run = sftplug.train(recipe, show=False)
    state = torch.load(run.output / "checkpoint-4" / "optimizer.pt", weights_only=True)["param_groups"][0]
    assert (state["betas"], state["eps"], state["r"], state["weight_lr_power"]) == ((0.8, 0.99), 1e-6, 1.0, 1.0)
    assert state["train_mode"] is False  # what lies beside it in the checkpoint are the means
    assert "train_mode" in schedulefree.AdamWScheduleFree([torch.zeros(1, requires_grad=True)]).param_groups[0]


def test_what_is_evaluated_and_saved_is_the_mean(recipe: dict[str, Any]) -> None:
    """By hand: y = beta1 * x + (1 - beta1) * z, with gradients taken at y, and the mean x."""
    run = sftplug.train(recipe, show=False)
    final = load_file(run.output / "adapter_model.safetensors")
    checkpoint = load_file(run.output / "checkpoint-4" / "adapter_model.safetensors")
    for name, evaluated in SEEN["evaluated"].items():
        mean = (SEEN["taken"][name] - 0.1 * SEEN["state"][name]) / 0.9
        assert torch.allclose(evaluated, mean, atol=1e-6)
        assert not evaluated.equal(SEEN["taken"][name])
        known = name.replace(".default", "")
        assert final[known].equal(evaluated)
        assert checkpoint[known].equal(evaluated)
    # What is loaded of the finished run has these weights, and measures what was measured.
    measured = run.evaluate()["loss"]
    logged = [line["eval_loss"] for line in run.directory.metrics() if "eval_loss" in line]
    assert measured == pytest.approx(logged[-1], abs=1e-5)


def test_a_run_that_was_killed_goes_on_to_the_same_bytes(recipe: dict[str, Any], tmp_path: Path) -> None:
    whole = sftplug.train({**recipe, "output": str(tmp_path / "whole")}, show=False)
    SEEN["stop at"] = 3  # after the checkpoint of the second update
    with pytest.raises(sftplug.SftplugError, match="killed"):
        sftplug.train(recipe, show=False)
    SEEN.clear()
    again = sftplug.train(recipe, resume=True, show=False)
    name = "adapter_model.safetensors"
    assert (again.output / name).read_bytes() == (whole.output / name).read_bytes()
    assert (again.output / "checkpoint-2").is_dir()


def test_switching_there_and_back_leaves_weights_where_they_were() -> None:
    torch.manual_seed(0)
    weight = torch.randn(1000, requires_grad=True)
    optimizer = schedulefree.AdamWScheduleFree([weight], lr=1e-2)
    optimizer.train()
    for _ in range(3):
        weight.grad = torch.randn(1000)
        optimizer.step()
    before = weight.detach().clone()
    for _ in range(50):
        optimizer.eval()
        assert (weight.detach() - before).abs().max() > 1e-4
        optimizer.train()
    assert (weight.detach() - before).abs().max() < 1e-5


def test_what_cannot_be_right_is_refused(recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(sftplug.RecipeError, match="is made for a rate that does not fall, and that of cosine does"):
        sftplug.load(recipe, "train.lr_scheduler_type=cosine")
    assert sftplug.load(recipe).recipe.train["lr_scheduler_type"] == "constant_with_warmup"
    with pytest.raises(sftplug.RecipeError, match="Choose `launch: ddp`"):
        sftplug.load(recipe, "launch={strategy: fsdp2, processes: 2}", "callbacks=[]")

    def not_there(name: str) -> None:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr("importlib.import_module", not_there)
    with pytest.raises(sftplug.MissingLibraryError, match="pip install schedulefree"):
        ScheduleFree().optimizer(None, 1e-2)  # type: ignore[arg-type]
