"""Liger's kernels compute what a plain model does, and are gone when the run is over."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, NemotronConfig
from transformers.models.llama import modeling_llama

import sftplug
from sftplug.testing import check_head, check_model_patch
from sftplug_liger import Liger, LigerHead

PLAIN = (modeling_llama.LlamaMLP, modeling_llama.LlamaRMSNorm, modeling_llama.apply_rotary_pos_emb)


def small(config: Any, **options: Any) -> Any:
    """Return a small model on the meta device."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config(vocab_size=64, **options))


def llama() -> Any:
    """Return a small Llama on the meta device."""
    return small(LlamaConfig, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)


def test_it_keeps_the_laws_of_model_patches() -> None:
    check_model_patch(Liger)
    assert (modeling_llama.LlamaMLP, modeling_llama.LlamaRMSNorm, modeling_llama.apply_rotary_pos_emb) == PLAIN


def test_a_run_is_trained_with_its_kernels_and_loaded_without(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "red, green, blue"}\n{"text": "green, blue, red"}\n')
    recipe = {
        "model": {"build": {"type": "tiny", "pretrain_steps": 0, "layers": 1, "hidden_size": 32}},
        "data": {"train": {"path": str(rows), "format": "text"}},
        "masking": "all",
        "quantization": "fp32",
        "adapter": "lora",
        "patches": "liger",
        "train": {"max_steps": 2, "per_device_train_batch_size": 1, "logging_steps": 1, "save_strategy": "no"},
        "output": str(tmp_path / "run"),
    }
    seen = []
    made = modeling_llama.LlamaDecoderLayer.__init__

    def note(layer: Any, *arguments: Any) -> None:
        made(layer, *arguments)
        seen.append((type(layer.mlp).__name__, type(layer.input_layernorm).__name__))

    with pytest.MonkeyPatch.context() as watched:
        watched.setattr(modeling_llama.LlamaDecoderLayer, "__init__", note)
        run = sftplug.train(recipe, show=False)
    assert ("LigerSwiGLUMLP", "LigerRMSNorm") in seen
    (patch,) = run.directory.state().patches
    assert (patch["type"], patch["changes_logits"]) == ("liger", False)
    assert patch["difference"] < 1e-5
    assert "A plain model computes the same" in (run.output / "README.md").read_text()
    model = run.conversation().model
    assert not any(type(module).__module__.startswith("liger_kernel") for module in model.modules())


def test_its_head_keeps_the_laws_of_heads() -> None:
    check_head(LigerHead)


def test_a_run_with_its_head_has_the_losses_of_one_without(tmp_path: Path) -> None:
    """With weights of tokens, and a loss that bends the likelihood."""
    rows = tmp_path / "rows.jsonl"
    turns = '[{"role": "user", "content": "Red?"}, {"role": "assistant", "content": "Yes.", "weight": 0.25}]'
    rows.write_text(f'{{"messages": {turns}}}\n{{"messages": {turns.replace("0.25", "2.0")}}}\n')
    recipe = {
        "model": {"build": {"type": "tiny", "pretrain_steps": 0, "layers": 1, "hidden_size": 32}},
        "data": {"train": {"path": str(rows), "format": "messages"}},
        "chat_template": "chatml",
        "masking": ["assistant", "message_weights"],
        "quantization": "fp32",
        "train": {"max_steps": 2, "per_device_train_batch_size": 2, "logging_steps": 1, "save_strategy": "no"},
    }
    losses = {}
    for head in ("full", "liger"):
        loss = {"type": "focal", "head": head}
        run = sftplug.train({**recipe, "loss": loss, "output": str(tmp_path / head)}, show=False)
        losses[head] = [entry["loss"] for entry in run.log if "loss" in entry]
        assert run.directory.state().head["name"] == head
    assert len(losses["full"]) == 2
    assert losses["liger"] == pytest.approx(losses["full"], rel=1e-5)


def test_kernels_that_are_left_out_are_left_out() -> None:
    model = llama()
    with Liger(rope=False, mlp=False).before_loading(model.config):
        assert modeling_llama.LlamaRMSNorm is not PLAIN[1]
        assert (modeling_llama.LlamaMLP, modeling_llama.apply_rotary_pos_emb) == (PLAIN[0], PLAIN[2])
        assert modeling_llama.LlamaForCausalLM.forward is type(model).forward  # head and loss are sftplug's
    assert modeling_llama.LlamaRMSNorm is PLAIN[1]


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = llama()
    assert list(Liger().check_model(model)) == []
    (said,) = Liger().check_model(small(GPT2Config, n_embd=32, n_layer=1, n_head=2))
    assert said.startswith("Liger has no kernels for models of type gpt2. Leave it out. It knows ")
    other = small(NemotronConfig, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2)
    (said,) = Liger(rms_norm=True).check_model(other)
    assert said == "Liger has no kernel for the `rms_norm` of models of type nemotron. Leave `rms_norm` out."
    assert list(Liger().check_model(other)) == []  # without `rms_norm`, as it says
    monkeypatch.delenv("TRITON_INTERPRET")
    if not torch.accelerator.is_available():
        (said,) = Liger().check_model(model)
        assert said.startswith("liger needs a GPU, and there is none here. Leave it out on this machine")
        (said,) = LigerHead().check_model(model)
        assert said.endswith("Leave it out on this machine: the usual head is equal.")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "red"}\n')
    data = {"train": {"path": str(rows), "format": "text"}}
    recipe = {"model": "org/name", "data": data, "masking": "all", "adapter": "lora", "patches": "liger"}
    with pytest.raises(
        sftplug.RecipeError, match=r"needs a GPU, and `train\.use_cpu` is true\. Leave one of the two out"
    ):
        sftplug.load({**recipe, "train": {"use_cpu": True}})
    assert sftplug.load(recipe).recipe.patches == (Liger(),)

    def not_there(name: str) -> None:
        raise ModuleNotFoundError(name=name.partition(".")[0])

    monkeypatch.setattr("importlib.import_module", not_there)
    with pytest.raises(sftplug.MissingLibraryError, match="pip install liger-kernel"):
        list(Liger().check_model(model))
