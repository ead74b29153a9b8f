"""What llama.cpp itself reads from the files: ``make serving``."""

import pytest
import torch
from gguf_twins import FAMILIES, LLAMA3, TEXTS, byte_level, export, sentencepiece, splits, write
from transformers import AutoModelForCausalLM, AutoTokenizer

import sftplug

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: `make serving` compiles it")

from sftplug_gguf.engines import LlamaCppModel

SCALED = {"llama scaled": ("llama", {"rope_parameters": LLAMA3})}


def _apart(folder, file):
    """Return how far llama.cpp's logits of a row are from transformers', as a share of their deviation."""
    ids = (torch.arange(100) * 7 % 500).tolist()
    with torch.inference_mode():
        wanted = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()(torch.tensor([ids])).logits[0]
    read = LlamaCppModel(file)
    found = read.logits(ids)
    read.close()
    return float((found - wanted).abs().mean() / wanted.std())


@pytest.mark.parametrize("name", FAMILIES)
def test_llama_cpp_computes_what_the_model_does(name, tmp_path):
    folder = write(tmp_path / "model", name)
    exact = _apart(folder, export(folder, tmp_path / "auto.gguf"))
    rounded = _apart(folder, export(folder, tmp_path / "q8_0.gguf", outtype="q8_0"))
    assert exact < 0.005 < rounded < 0.1


def test_llama_cpp_scales_positions_as_llama_3_does(tmp_path):
    folder = write(tmp_path / "model", "llama", rope_parameters=LLAMA3)
    scaled = _apart(folder, export(folder, tmp_path / "scaled.gguf"))
    plain = write(tmp_path / "plain", "llama", rope_parameters={"rope_type": "default", "rope_theta": 500000.0})
    assert scaled < 0.005
    assert _apart(folder, export(plain, tmp_path / "plain.gguf")) > 2 * scaled


def test_llama_cpp_has_the_window_of_gemma_3(tmp_path):
    folder = write(tmp_path / "model", "gemma3", sliding_window=8)
    assert _apart(folder, export(folder, tmp_path / "auto.gguf")) < 0.005


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "qwen2", "llama-bpe", "dbrx", "sentencepiece"])
def test_llama_cpp_makes_the_same_tokens(pre, tmp_path):
    if pre == "sentencepiece":
        tokenizer, folder = sentencepiece(), write(tmp_path / "model", "phi3")
    else:
        before, ignore_merges = splits()[pre]
        tokenizer, folder = byte_level(*before, ignore_merges=ignore_merges), write(tmp_path / "model", "llama")
    tokenizer.save_pretrained(folder)
    read = LlamaCppModel(export(folder, tmp_path / "model.gguf"))
    for text in TEXTS:
        assert read.text_ids(text) == tokenizer(text)["input_ids"], text
    read.close()


def test_a_run_is_exported_and_compared_by_llama_cpp(lora_run, tmp_path):
    run = sftplug.open_run(lora_run)
    run.export("gguf", tmp_path / "model.gguf", compare="llama.cpp")
    (found,) = run.directory.exports()[str(tmp_path / "model.gguf")]["compared"]
    assert found["engine"].startswith("llama.cpp")
    assert found["equal_replies"] == found["prompts"] > 0
    assert found["difference"]["relative"] < 0.005
    messages = [{"role": "user", "content": "One?"}]
    tokenizer = AutoTokenizer.from_pretrained(lora_run)
    read = LlamaCppModel(tmp_path / "model.gguf")
    assert read.chat_ids(messages) == tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    read.close()
