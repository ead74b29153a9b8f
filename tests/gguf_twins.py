"""Tiny models and tokenizers of the families that a GGUF file can hold."""

import json

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

import sftplug
from sftplug_gguf.exporter import GgufExport

SMALL = {
    **{"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"num_key_value_heads": 2, "max_position_embeddings": 128},
}
LLAMA3 = {
    **{"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "original_max_position_embeddings": 64,
}
FAMILIES = {
    "llama": ("llama", {}),
    "llama tied": ("llama", {"tie_word_embeddings": True}),
    "mistral": ("mistral", {"sliding_window": None}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 32}),
    "qwen3 moe": (
        "qwen3_moe",
        {
            "head_dim": 32,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "norm_topk_prob": True,
        },
    ),
    "gemma3": (
        "gemma3_text",
        {"num_hidden_layers": 6, "head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 16},
    ),
    "phi3": ("phi3", {"original_max_position_embeddings": 128, "sliding_window": None}),
}


def write(folder, name, dtype=torch.float32, **more):
    """Write a tiny model with random weights, norms and biases too, and a tokenizer; return the folder."""
    from sftplug_tiny.builder import build_tokenizer

    tokenizer = build_tokenizer(512)
    kind, options = FAMILIES[name]
    ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = AutoConfig.for_model(kind, **{**SMALL, **options, **ids, **more}, vocab_size=len(tokenizer) + 6)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            if "norm" in path or path.endswith("bias"):
                parameter.add_(torch.randn_like(parameter) * 0.2)
    model.to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def export(folder, target, **options):
    """Write the model in `folder` to `target`."""
    GgufExport(**options).export(sftplug.FinishedModel(folder, (), False, None, None), target)
    return target


# --- tokenizers -------------------------------------------------------------------------------------------------------

TEXTS = (
    "Hello, world!  12345 it's\n\n\tdone. ÄÖÜ ß € 漢字 \N{GRINNING FACE}",
    "def f(x):\n    return x+1  # don't\r\n",
    "   leading and trailing   ",
)


def byte_level(*before, ignore_merges=False):
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    parts = [pre_tokenizers.Split(Regex(part), "isolated") if isinstance(part, str) else part for part in before]
    parts.append(
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not any(isinstance(p, str) for p in before))
    )
    made = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Sequence(parts), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    made.train_from_iterator([*TEXTS, "the quick brown fox, 1234 times"] * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|im_end|>")


def splits():
    from tokenizers import pre_tokenizers

    tail = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    start = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
    return {
        "gpt-2": ((), False),
        "smollm": ((pre_tokenizers.Digits(individual_digits=True),), False),
        "qwen2": ((rf"{start}|\p{{N}}{tail}",), False),
        "llama-bpe": ((rf"{start}|\p{{N}}{{1,3}}{tail}",), True),
        "dbrx": ((rf"{start}|\p{{N}}{{1,3}}{tail}",), False),
    }


def sentencepiece():
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers

    made = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    made.train_from_iterator(
        [*TEXTS, "the quick brown fox"] * 3, trainers.BpeTrainer(vocab_size=420, special_tokens=special)
    )
    written = json.loads(made.to_str())
    # Bytes are tokens like others, and no added ones.
    written["added_tokens"] = [token for token in written["added_tokens"] if not token["content"].startswith("<0x")]
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(written)), bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
