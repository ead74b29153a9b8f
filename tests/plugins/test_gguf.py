import json

import pytest
import torch
from gguf_twins import FAMILIES, LLAMA3, SMALL, TEXTS, byte_level, export, sentencepiece, splits, write
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

import sftplug
from sftplug.cli import app
from sftplug_gguf import exporter as gguf_exporter
from sftplug_gguf.engines import TransformersModel
from sftplug_gguf.exporter import GgufExport
from sftplug_gguf.families import family_of, llama3_factors, metadata
from sftplug_gguf.vocabulary import vocabulary
from sftplug_gguf.weights import Weight, weights
from sftplug_gguf.writing import type_of


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """Return a function that writes a tiny model and returns its folder."""

    def make(name, dtype=torch.float32, **more):
        return write(tmp_path_factory.mktemp("model"), name, dtype, **more)

    return make


@pytest.mark.parametrize("name", FAMILIES)
def test_a_file_read_again_computes_what_the_model_does(name, folder_of, tmp_path):
    folder = folder_of(name)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = torch.arange(40) * 7 % 500
    with torch.inference_mode():
        wanted = model(ids[None]).logits[0]
    apart = {}
    for outtype in ("auto", "f16", "q8_0", "q4_0"):
        read = TransformersModel(export(folder, tmp_path / f"{outtype}.gguf", outtype=outtype), folder)
        apart[outtype] = float((read.logits(ids.tolist()) - wanted).abs().mean() / wanted.std())
    assert apart["auto"] < 1e-6 < apart["f16"] < 3e-3 < apart["q8_0"] < 0.05 < apart["q4_0"] < 0.5


def test_bfloat16_weights_are_written_as_they_are(folder_of, tmp_path):
    from gguf import GGUFReader

    folder = folder_of("qwen3", torch.bfloat16)
    reader = GGUFReader(export(folder, tmp_path / "auto.gguf"))
    types = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert types["blk.1.ffn_down.weight"] == types["token_embd.weight"] == "BF16"
    assert types["blk.1.attn_q_norm.weight"] == "F32"
    stored = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").model.layers[1].mlp.down_proj.weight
    written = next(tensor for tensor in reader.tensors if tensor.name == "blk.1.ffn_down.weight").data
    assert torch.equal(torch.from_numpy(written.copy()).view(torch.bfloat16), stored.detach())


def test_types_of_weights():
    def kind(name, shape, outtype):
        return type_of(Weight(name, shape, torch.empty), outtype).name

    assert kind("blk.0.ffn_up.weight", (96, 64), "q4_0") == "Q4_0"
    assert kind("token_embd.weight", (96, 64), "q4_0") == kind("output.weight", (96, 64), "q5_1") == "Q8_0"
    assert kind("blk.0.ffn_up.weight", (96, 40), "q8_0") == "F16"  # 40 is not whole blocks of 32
    assert kind("blk.0.ffn_gate_inp.weight", (4, 64), "q8_0") == kind("blk.0.attn_q.bias", (64,), "q8_0") == "F32"


def test_scaled_positions_are_transformers_own():
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = AutoConfig.for_model("llama", **SMALL, rope_parameters=LLAMA3)
    plain = 500000.0 ** -(torch.arange(0, 16, 2) / 16)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    factors = torch.tensor(llama3_factors(config))
    assert torch.allclose(plain / factors, scaled, rtol=1e-5)
    assert (factors.min(), factors.max()) == (1.0, 8.0)
    assert llama3_factors(AutoConfig.for_model("llama", **SMALL)) is None


def test_scaled_positions_are_a_tensor_of_the_file(folder_of, tmp_path):
    folder = folder_of("llama", rope_parameters=LLAMA3)
    config = AutoConfig.from_pretrained(folder)
    found = {weight.name: weight for weight in weights(folder, family_of(config), config)}
    assert found["rope_freqs.weight"].load().tolist() == pytest.approx(llama3_factors(config))


def test_what_llama_cpp_is_told():
    config = AutoConfig.for_model("qwen3_moe", **SMALL, **FAMILIES["qwen3 moe"][1], vocab_size=300)
    told = metadata(family_of(config), config)
    assert told["qwen3moe.attention.key_length"] == told["qwen3moe.rope.dimension_count"] == 32
    assert told["qwen3moe.expert_count"], told["qwen3moe.expert_used_count"] == (4, 2)
    assert told["qwen3moe.expert_feed_forward_length"] == 32
    gemma = AutoConfig.for_model("gemma3_text", **{**SMALL, **FAMILIES["gemma3"][1]})
    told = metadata(family_of(gemma), gemma)
    assert (told["gemma3.rope.freq_base"], told["gemma3.rope.freq_base_swa"]) == (1e6, 1e4)
    assert told["gemma3.attention.sliding_window"] == 16
    # A Llama of llama.cpp's has no window: a Mistral with one has the same answers up to its length.
    mistral = AutoConfig.for_model("mistral", **SMALL, sliding_window=32)
    assert metadata(family_of(mistral), mistral)["llama.context_length"] == 32


@pytest.mark.parametrize(
    ("name", "more", "text"),
    [
        ("llama", {"rope_parameters": {**LLAMA3, "rope_type": "yarn"}}, "rotary embedding is scaled by 'yarn'"),
        ("qwen2", {"use_sliding_window": True}, "`use_sliding_window`"),
        ("qwen3 moe", {"norm_topk_prob": False}, "`norm_topk_prob: false`"),
        ("qwen3 moe", {"mlp_only_layers": [0]}, "`mlp_only_layers`"),
        ("gemma3", {"query_pre_attn_scalar": 8}, "`query_pre_attn_scalar`"),
        ("gemma3", {"layer_types": ["full_attention"] * 6}, "`layer_types`"),
        ("gemma3", {"final_logit_softcapping": 30.0}, "`final_logit_softcapping`"),
    ],
)
def test_what_llama_cpp_does_not_compute_is_refused(name, more, text):
    kind, options = FAMILIES[name]
    config = AutoConfig.for_model(kind, **{**SMALL, **options, **more})
    assert any(text in said for said in GgufExport().check_config(config))
    assert not list(GgufExport().check_config(AutoConfig.for_model(kind, **{**SMALL, **options})))


# --- tokenizers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "qwen2", "llama-bpe", "dbrx"])
def test_a_byte_level_tokenizer_read_again_makes_the_same_tokens(pre, folder_of, tmp_path):
    before, ignore_merges = splits()[pre]
    tokenizer = byte_level(*before, ignore_merges=ignore_merges)
    assert vocabulary(tokenizer, 500).pre == pre
    folder = folder_of("llama")
    tokenizer.save_pretrained(folder)
    read = TransformersModel(export(folder, tmp_path / "model.gguf"), folder)
    for text in (*TEXTS, "<|im_start|>user\nHi 12 34<|im_end|>\n"):
        assert read.text_ids(text) == tokenizer(text)["input_ids"]


def test_a_way_to_split_text_that_llama_cpp_has_no_name_for_is_refused():
    with pytest.raises(sftplug.ModelError, match=r"no name for how it splits text, \[a-z\]\+"):
        vocabulary(byte_level("[a-z]+"), 500)


def test_a_tokenizer_of_sentencepiece_read_again_makes_the_same_tokens(folder_of, tmp_path):
    tokenizer = sentencepiece()
    words = vocabulary(tokenizer, 500)
    assert (words.model, words.space_prefix, words.tokens[499]) == ("llama", True, "[PAD499]")
    byte = tokenizer.convert_tokens_to_ids("<0x41>")
    assert [words.types[index] for index in (0, 1, byte, 499)] == [2, 3, 6, 5]
    folder = folder_of("phi3")
    tokenizer.save_pretrained(folder)
    read = TransformersModel(export(folder, tmp_path / "model.gguf"), folder)
    for text in ("the quick fox", "it's done, 12 漢字"):
        assert read.text_ids(text) == tokenizer(text)["input_ids"]


# --- runs -------------------------------------------------------------------------------------------------------------


def test_a_run_is_exported_and_compared(lora_run, tmp_path):
    target = tmp_path / "model.gguf"
    result = CliRunner().invoke(
        app, ["export", str(lora_run), "gguf", "outtype=q8_0", "--output", str(target), "--json"]
    )
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout)["compared"]
    assert found["engine"].startswith(("transformers' GGUF reader", "llama.cpp"))
    assert 0 < found["difference"]["relative"] < 0.05
    assert 0 < found["equal_replies"] <= found["prompts"]
    kept = json.loads((lora_run / "exports.json").read_text())[str(target)]
    assert (kept["exporter"], kept["options"]["outtype"], kept["compared"]) == ("gguf", "q8_0", [found])
    told = f"| {found['equal_replies']} of {found['prompts']} |"
    assert told in (lora_run / "README.md").read_text()
    assert "outtype: q8_0" in sftplug.open_run(lora_run).report(rows=0)
    assert "compared with the trained model" in CliRunner().invoke(app, ["report", str(lora_run)]).output
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(lora_run).chat_template
    assert tokenizer.eos_token == "<|im_end|>"


SPOILED = {
    "of the conversation": ("tokenizer.chat_template", lambda old: old.replace("<|im_end|>", "<|im_end|> ")),
    "of the rendered prompt": ("tokenizer.ggml.merges", lambda old: old[:40]),
    "stops at none": ("tokenizer.ggml.eos_token_id", lambda old: 5),
}


@pytest.mark.parametrize("text", SPOILED)
def test_what_is_not_what_was_trained_is_not_kept(text, lora_run, tmp_path, monkeypatch):
    key, change = SPOILED[text]
    before = (lora_run / "README.md").read_bytes()
    described = gguf_exporter.described_tokenizer

    def changed(*told):
        keys = described(*told)
        return {**keys, key: change(keys[key])}

    monkeypatch.setattr(gguf_exporter, "described_tokenizer", changed)
    with pytest.raises(sftplug.ModelError, match="is not what was trained, and nothing of it was kept") as caught:
        sftplug.open_run(lora_run).export("gguf", tmp_path / "model.gguf", compare="transformers")
    assert text in str(caught.value)
    assert not list(tmp_path.iterdir())
    kept = sftplug.open_run(lora_run).directory.exports()
    assert str(tmp_path / "model.gguf") not in kept
    assert (lora_run / "README.md").read_bytes() == before


def test_weights_that_are_not_those_trained_are_not_kept(lora_run, tmp_path, monkeypatch):
    family = family_of(AutoConfig.for_model("llama"))
    monkeypatch.setattr(gguf_exporter, "family_of", lambda config: type(family)(family.name, (), family.keys))
    with pytest.raises(sftplug.ModelError, match=r"its logits differ by [0-9.]+% of their standard deviation"):
        sftplug.open_run(lora_run).export("gguf", tmp_path / "model.gguf", compare="transformers")
    assert not list(tmp_path.iterdir())


def test_a_weight_that_16_bits_do_not_hold_is_refused(folder_of, tmp_path):
    folder = folder_of("llama")
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.model.layers[0].mlp.up_proj.weight.data[0, 0] = 7e4
    model.save_pretrained(folder)
    with pytest.raises(sftplug.ModelError, match=r"blk\.0\.ffn_up\.weight has values above 65504"):
        export(folder, tmp_path / "f16.gguf", outtype="f16")
    assert export(folder, tmp_path / "bf16.gguf", outtype="bf16").is_file()
    model.model.layers[0].mlp.up_proj.weight.data[0, 0] = float("nan")
    model.save_pretrained(folder)
    with pytest.raises(sftplug.ModelError, match="is not finite"):
        export(folder, tmp_path / "nan.gguf")


def test_check_knows_that_a_model_cannot_be_written(twin, recipe_file):
    file = recipe_file(model=str(twin("mamba2")), adapter="full", chat_template="chatml", export=["gguf"])
    said = sftplug.check(sftplug.load(file))
    assert any("models of the type mamba2 cannot be written as GGUF" in text for text in said), said
