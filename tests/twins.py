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

TOWER = {"depth": 1, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64}
AXES = {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}}
IMAGE = {"image_token_id": 5, "video_token_id": 6, "vision_start_token_id": 7, "vision_end_token_id": 8}
STATES = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_n_groups": 1, "mamba_expand": 2}
DELTAS = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}

FAMILIES = {
    "llama": ("llama", {**WIDTH, **KEYS}),
    "mistral": ("mistral", {**WIDTH, **KEYS, "head_dim": 16}),
    "qwen2": ("qwen2", {**WIDTH, **KEYS}),
    "qwen3": ("qwen3", {**WIDTH, **KEYS, "head_dim": 16}),
    "phi3": ("phi3", {**WIDTH, **KEYS}),
    "smollm3": ("smollm3", {**WIDTH, **KEYS}),
    "gemma3_text": ("gemma3_text", {**WIDTH, **KEYS, "head_dim": 16, "sliding_window": 32}),
    "gpt2": ("gpt2", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512}),
    "olmo3": ("olmo3", {**WIDTH, **KEYS, "sliding_window": 32}),
    "qwen3_next": (
        "qwen3_next",
        {
            **WIDTH,
            **KEYS,
            **EXPERTS,
            **DELTAS,
            "num_experts": 4,
            "head_dim": 16,
            "shared_expert_intermediate_size": 32,
            "layer_types": ["linear_attention", "full_attention"],
        },
    ),
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
    "glm4_moe": ("glm4_moe", {**WIDTH, **KEYS, **EXPERTS, **GROUPS, "head_dim": 16}),
    "olmoe": ("olmoe", {**WIDTH, **KEYS, "num_experts": 4, "num_experts_per_tok": 2}),
    "granitemoe": ("granitemoe", {**WIDTH, **KEYS, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "granitemoehybrid": (
        "granitemoehybrid",
        {
            **WIDTH,
            **KEYS,
            **STATES,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "shared_intermediate_size": 32,
            "layer_types": ["mamba", "attention"],
        },
    ),
    "jetmoe": (
        "jetmoe",
        {
            "hidden_size": 64,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_key_value_heads": 2,
            "kv_channels": 16,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
        },
    ),
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
    "qwen2_5_vl": (
        "qwen2_5_vl",
        {"text_config": {**WIDTH, **KEYS, **AXES}, "vision_config": {**TOWER, "fullatt_block_indexes": [0]}, **IMAGE},
    ),
    "qwen3_vl": (
        "qwen3_vl",
        {
            "text_config": {**WIDTH, **KEYS, **AXES, "head_dim": 16},
            "vision_config": {**TOWER, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
            **IMAGE,
        },
    ),
    "qwen3_vl_moe": (
        "qwen3_vl_moe",
        {
            "text_config": {**WIDTH, **KEYS, **AXES, **EXPERTS, "head_dim": 16, "num_experts": 4},
            "vision_config": {**TOWER, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
            **IMAGE,
        },
    ),
    "llava_next": (
        "llava_next",
        {
            "text_config": {**WIDTH, **KEYS, "model_type": "llama"},
            "vision_config": {**VISION, "model_type": "clip_vision_model"},
            "image_token_index": 5,
        },
    ),
    "llama4": (
        "llama4",
        {
            "text_config": {
                **WIDTH,
                **KEYS,
                "head_dim": 16,
                "intermediate_size_mlp": 128,
                "num_local_experts": 4,
                "num_experts_per_tok": 1,
                "interleave_moe_layer_step": 1,
            },
            "vision_config": {
                **VISION,
                "vision_output_dim": 32,
                "projector_input_dim": 32,
                "projector_output_dim": 32,
                "pixel_shuffle_ratio": 0.5,
            },
        },
    ),
    "mllama": (
        "mllama",
        {
            "text_config": {**WIDTH, **KEYS, "cross_attention_layers": [1], "bos_token_id": 2},
            "vision_config": {
                **VISION,
                "num_global_layers": 1,
                "attention_heads": 2,
                "vision_output_dim": 64,
                "intermediate_layers_indices": [0],
                "supported_aspect_ratios": [[1, 1]],
                "max_num_tiles": 1,
            },
            "image_token_index": 5,
        },
    ),
}
"""Name -> transformers' name of the family, and its options."""


def config_of(name: str, vocabulary: int = 1024, **tokens):
    """Return the configuration of a tiny model of a family."""
    from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoConfig

    family, options = FAMILIES[name]
    inner = options.get("text_config")
    if inner is not None:
        options = {**options, "text_config": {"vocab_size": vocabulary, **tokens, **inner}}
    else:
        options = {**options, "vocab_size": vocabulary, **tokens}
    config = AutoConfig.for_model(family, **options)
    if inner is not None:  # what its author saves of it
        config.architectures = [MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)].__name__]
    return config


def make_model(name: str, vocabulary: int = 128):
    """Return a tiny model of a family, the same each time."""
    import torch

    from sftplug.model.architectures import auto_class

    config = config_of(name, vocabulary, pad_token_id=0, eos_token_id=1)
    torch.manual_seed(0)
    return auto_class(config).from_config(config).eval()


def write_twin(name: str, folder: Path) -> Path:
    """Write a tiny model of a family, with a tokenizer, to `folder`."""
    import torch

    from sftplug.model.architectures import auto_class
    from sftplug_tiny.builder import build_tokenizer

    tokenizer = build_tokenizer(1024)
    torch.manual_seed(0)
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    config = config_of(name, len(tokenizer), **ids)
    auto_class(config).from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
