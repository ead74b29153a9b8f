"""Tiny models with random weights, of families that are built otherwise than a Llama."""

from pathlib import Path

WIDTH = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
KEYS = {"num_key_value_heads": 2, "max_position_embeddings": 512}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
GROUPS = {"n_routed_experts": 4, "n_shared_experts": 1, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}

FAMILIES = {
    "llama": ("llama", {**WIDTH, **KEYS}),
    "llama_tied": ("llama", {**WIDTH, **KEYS, "tie_word_embeddings": True}),
    "qwen3_moe": ("qwen3_moe", {**WIDTH, **KEYS, **EXPERTS, "num_experts": 4, "head_dim": 16}),
    "qwen3_moe_dense": (
        "qwen3_moe",
        {**WIDTH, **KEYS, **EXPERTS, "num_experts": 4, "head_dim": 16, "mlp_only_layers": [0]},
    ),
    "qwen2_moe": ("qwen2_moe", {**WIDTH, **KEYS, **EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 32}),
    "gpt_oss": (
        "gpt_oss",
        {
            **WIDTH,
            **KEYS,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "head_dim": 16,
            "sliding_window": 32,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
    ),
    "mixtral": ("mixtral", {**WIDTH, **KEYS, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "deepseek_v3": ("deepseek_v3", {**WIDTH, **KEYS, **EXPERTS, **GROUPS, **LATENT, "num_key_value_heads": 4}),
    "mamba2": (
        "mamba2",
        {"hidden_size": 64, "num_hidden_layers": 2, "num_heads": 8, "head_dim": 16, "state_size": 16, "n_groups": 2},
    ),
    "gemma3": (
        "gemma3",
        {
            "text_config": {**WIDTH, **KEYS, "head_dim": 16, "sliding_window": 32},
            "vision_config": VISION,
            "mm_tokens_per_image": 4,
            "image_token_index": 5,
            "boi_token_index": 6,
            "eoi_token_index": 7,
        },
    ),
}
"""Name -> transformers' name of the family, and its options."""


def config_of(name: str, vocabulary: int = 1024, **tokens):
    """Return the configuration of a tiny model of a family."""
    from transformers import AutoConfig

    family, options = FAMILIES[name]
    inner = options.get("text_config")
    if inner is not None:
        options = {**options, "text_config": {**inner, "vocab_size": vocabulary, **tokens}}
    else:
        options = {**options, "vocab_size": vocabulary, **tokens}
    return AutoConfig.for_model(family, **options)


def make_model(name: str, vocabulary: int = 128):
    """Return a tiny model of a family, the same each time."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config_of(name, vocabulary, pad_token_id=0, eos_token_id=1)).eval()


def write_twin(name: str, folder: Path) -> Path:
    """Write a tiny model of a family, with a tokenizer, to `folder`."""
    import torch
    from transformers import AutoModelForCausalLM

    from sftplug_tiny.builder import build_tokenizer

    tokenizer = build_tokenizer(1024)
    torch.manual_seed(0)
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    AutoModelForCausalLM.from_config(config_of(name, len(tokenizer), **ids)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
