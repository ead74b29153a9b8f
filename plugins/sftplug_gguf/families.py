"""What llama.cpp computes, family by family, and how transformers' weights become its own.

A family is here when its mapping has been shown right: the file, read again, gives the logits of the model. The keys
are those of the GGUF specification; what is done to a tensor follows from how llama.cpp computes with it:

* it turns a head's features pairwise (0 with 1, 2 with 3) in the family `llama`, where transformers turns the first
  half with the second: rows of the query and key projections change places;
* it multiplies with a norm's weight, where Gemma multiplies with 1 + weight: the 1 is added;
* it holds the experts of a layer in three tensors, one for each of gate, up and down, whatever transformers has fused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

Keys = dict[str, Any]
"""Keys of the metadata without the family's name in front: ``attention.head_count``."""


@dataclass(frozen=True)
class Family:
    """An architecture of llama.cpp's, and the models of transformers that it computes."""

    name: str
    """``general.architecture``."""
    model_types: tuple[str, ...]
    keys: Callable[[PretrainedConfig], Keys]
    """What only this family has."""
    limits: Callable[[PretrainedConfig], Iterator[str]] = field(default=lambda config: iter(()))
    """What a model of it can have and llama.cpp does not compute, each as the end of "...: its <limit>"."""
    change: Callable[[str, torch.Tensor, PretrainedConfig], torch.Tensor] = field(
        default=lambda name, tensor, config: tensor
    )
    """(GGUF name, tensor, configuration) -> the tensor as llama.cpp computes with it."""


def family_of(config: PretrainedConfig) -> Family | None:
    """Return the family of a model's (text) configuration."""
    return next((family for family in FAMILIES if config.model_type in family.model_types), None)


def metadata(family: Family, config: PretrainedConfig) -> Keys:
    """Return key -> value for all that llama.cpp must know to compute the model, with full names of the keys."""
    keys = {
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": getattr(config, "num_key_value_heads", None) or config.num_attention_heads,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "vocab_size": config.vocab_size,
        **family.keys(config),
    }
    return {f"{family.name}.{name}": value for name, value in keys.items()}


def head_size(config: PretrainedConfig) -> int:
    """Return the features of an attention head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


# --- positions --------------------------------------------------------------------------------------------------------


def rope(config: PretrainedConfig) -> Mapping[str, Any]:
    """Return the parameters of the rotary embedding; those of global layers where local ones have others."""
    parameters: Mapping[str, Any] = config.rope_parameters
    found: Mapping[str, Any] = parameters.get("full_attention", parameters)
    return found


def rope_limits(config: PretrainedConfig, *kinds: str) -> Iterator[str]:
    """Yield what is wrong with a rotary embedding of another kind than the default one and `kinds`."""
    kind = rope(config).get("rope_type", "default")
    if kind not in ("default", *kinds):
        yield f"rotary embedding is scaled by '{kind}', whose factors are not written"


def plain_rope(config: PretrainedConfig) -> Keys:
    """Return the keys of a rotary embedding that turns all features of a head."""
    base: Keys = {"rope.freq_base": float(rope(config)["rope_theta"]), "rope.dimension_count": head_size(config)}
    if rope(config).get("rope_type") == "linear":
        base |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(rope(config)["factor"])}
    return base


def llama3_factors(config: PretrainedConfig) -> list[float] | None:
    """Return by what each frequency of the rotary embedding is divided (Llama 3.1's scaling), None without scaling.

    As transformers computes it (``_compute_llama3_parameters``): low frequencies are divided by ``factor``, high ones
    stay, and between them it goes over evenly.
    """
    how = rope(config)
    if how.get("rope_type") != "llama3":
        return None
    old, factor = how["original_max_position_embeddings"], how["factor"]
    low, high = how["low_freq_factor"], how["high_freq_factor"]
    factors = []
    for feature in range(0, head_size(config), 2):
        turns = old / (2 * math.pi * how["rope_theta"] ** (feature / head_size(config)))  # over the old context
        share = min(max((turns - low) / (high - low), 0.0), 1.0)
        factors.append(1 / ((1 - share) / factor + share))
    return factors


# --- families ---------------------------------------------------------------------------------------------------------


def _llama_keys(config: PretrainedConfig) -> Keys:
    sizes = {"attention.key_length": head_size(config), "attention.value_length": head_size(config)}
    window = getattr(config, "sliding_window", None)
    # The family knows no window: up to its length there is no difference.
    context = {"context_length": min(window, config.max_position_embeddings)} if window else {}
    return {**plain_rope(config), **sizes, **context}


def _turned_pairwise(name: str, tensor: torch.Tensor, config: PretrainedConfig) -> torch.Tensor:
    """Bring the features that are turned together next to each other: 0 1 2 3 4 5 becomes 0 3 1 4 2 5, in each head."""
    if ".attn_q." not in name and ".attn_k." not in name:
        return tensor
    heads = tensor.shape[0] // head_size(config)
    halves = tensor.reshape(heads, 2, head_size(config) // 2, *tensor.shape[1:])
    return halves.transpose(1, 2).reshape(tensor.shape)


def _qwen_keys(config: PretrainedConfig) -> Keys:
    sizes = {"attention.key_length": head_size(config), "attention.value_length": head_size(config)}
    return {**plain_rope(config), **(sizes if config.model_type != "qwen2" else {})}


def _qwen_limits(config: PretrainedConfig) -> Iterator[str]:
    yield from rope_limits(config, "linear")
    if getattr(config, "use_sliding_window", False):
        yield "sliding window (`use_sliding_window`) is not computed by llama.cpp"


def _qwen3_moe_keys(config: PretrainedConfig) -> Keys:
    return {
        **_qwen_keys(config),
        "expert_count": config.num_experts,
        "expert_used_count": config.num_experts_per_tok,
        "expert_feed_forward_length": config.moe_intermediate_size,
    }


def _qwen3_moe_limits(config: PretrainedConfig) -> Iterator[str]:
    yield from _qwen_limits(config)
    if not config.norm_topk_prob:
        yield "experts' weights do not sum up to one (`norm_topk_prob: false`), as llama.cpp has them"
    if config.mlp_only_layers or config.decoder_sparse_step != 1:
        yield "layers are not all mixtures (`mlp_only_layers`, `decoder_sparse_step`)"


GEMMA_LOCAL_BASE, GEMMA_PATTERN = 10_000.0, 6
"""Base of the rotary embedding in layers with a window; every sixth layer has none. llama.cpp has both fixed."""


def _gemma3_keys(config: PretrainedConfig) -> Keys:
    return {
        **plain_rope(config),
        "attention.key_length": head_size(config),
        "attention.value_length": head_size(config),
        "attention.sliding_window": config.sliding_window,
        "rope.freq_base_swa": float(config.rope_parameters["sliding_attention"]["rope_theta"]),
    }


def _gemma3_limits(config: PretrainedConfig) -> Iterator[str]:
    yield from rope_limits(config, "linear")
    if config.query_pre_attn_scalar != head_size(config):
        yield "attention is scaled by another number than the size of its heads (`query_pre_attn_scalar`)"
    if config.rope_parameters["sliding_attention"]["rope_theta"] != GEMMA_LOCAL_BASE:
        yield f"local layers have another rotary base than {GEMMA_LOCAL_BASE:g}"
    whole = [kind == "full_attention" for kind in config.layer_types]
    if whole != [(layer + 1) % GEMMA_PATTERN == 0 for layer in range(len(whole))]:
        yield f"global layers are not every {GEMMA_PATTERN}th (`layer_types`)"
    if config.final_logit_softcapping or config.attn_logit_softcapping:
        yield "logits are capped (`final_logit_softcapping`), which llama.cpp does not do in this family"


def _one_more(name: str, tensor: torch.Tensor, config: PretrainedConfig) -> torch.Tensor:
    """Add the 1 that Gemma adds to a norm's weight when it computes."""
    return tensor.float() + 1 if name.endswith("norm.weight") else tensor


def _phi3_keys(config: PretrainedConfig) -> Keys:
    turned = int(head_size(config) * rope(config).get("partial_rotary_factor", 1.0))
    return {
        "rope.freq_base": float(rope(config)["rope_theta"]),
        "rope.dimension_count": turned,
        "rope.scaling.original_context_length": config.original_max_position_embeddings,
        "attention.sliding_window": config.sliding_window or 0,
    }


FAMILIES = (
    Family(
        "llama",
        ("llama", "mistral"),
        _llama_keys,
        lambda config: rope_limits(config, "linear", "llama3"),
        _turned_pairwise,
    ),
    Family("qwen2", ("qwen2",), _qwen_keys, _qwen_limits),
    Family("qwen3", ("qwen3",), _qwen_keys, _qwen_limits),
    Family("qwen3moe", ("qwen3_moe",), _qwen3_moe_keys, _qwen3_moe_limits),
    Family("gemma3", ("gemma3_text",), _gemma3_keys, _gemma3_limits, _one_more),
    Family("phi3", ("phi3",), _phi3_keys, rope_limits),
)
