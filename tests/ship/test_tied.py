"""A head that shares its weights with the embeddings: what is merged says what the adapter said."""

import json

import pytest
import torch
from conftest import SHORT
from safetensors import safe_open


@pytest.fixture
def trained(recipe_file, twin, command, tmp_path):
    """Return a function that trains an adapter on a tied model, merges it, and returns what plain libraries load."""

    def go(**adapter):
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        file = recipe_file(model=str(twin("llama_tied")), adapter={"type": "lora", **adapter}, train=SHORT)
        check = command("check", file)
        assert check.exit_code == 0, check.exception
        assert command("train", file).exit_code == 0
        result = command("merge", tmp_path / "out", "--output", tmp_path / "merged")
        assert result.exit_code == 0, result.exception
        base = AutoModelForCausalLM.from_pretrained(twin("llama_tied"), dtype=torch.float32)
        adapted = PeftModel.from_pretrained(base, tmp_path / "out")
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
        with torch.no_grad():
            ids = torch.arange(5, 45)[None]
            assert torch.allclose(adapted(input_ids=ids).logits, merged(input_ids=ids).logits, atol=1e-4)
        return check.output, result.output, merged

    return go


def test_an_update_of_the_embeddings_leaves_the_head_as_it_was(trained, twin, tmp_path):
    said, told, merged = trained(targets=["q_proj", "embed_tokens"])
    assert f"`sftplug merge` gives the head its own, {merged.lm_head.weight.numel():,} parameters more" in said
    assert "the head has weights of its own now" in told
    assert json.loads((tmp_path / "merged" / "merge.json").read_text())["untied"] is True
    assert merged.config.tie_word_embeddings is False
    with safe_open(twin("llama_tied") / "model.safetensors", "pt") as base:
        assert torch.equal(merged.lm_head.weight, base.get_tensor("model.embed_tokens.weight"))
    assert not torch.equal(merged.lm_head.weight, merged.model.embed_tokens.weight)


@pytest.mark.parametrize("whole", [["embed_tokens"], ["lm_head"], ["embed_tokens", "lm_head"]])
def test_a_table_that_is_trained_whole_stays_head_and_embeddings(trained, whole):
    said, told, merged = trained(targets=["q_proj"], modules_to_save=whole)
    assert "gives the head its own" not in said
    assert "weights of its own" not in told
    assert merged.config.tie_word_embeddings is True
    assert merged.lm_head.weight is merged.model.embed_tokens.weight
