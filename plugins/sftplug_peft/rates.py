"""At which rate Adam trains each family of PEFT's types.

Types that add matrices to a frozen base, low-rank, orthogonal or sparse, train at LoRA's rate, and so does every type
that is not listed here. Others want another one: the fewer numbers a type trains, the further each has to go. The
rates are those of the papers that are named, rounded between them where a family has several, and of PEFT's own
comparison of its methods (``method_comparison/MetaMathQA`` in its repository, Llama-3.2-3B, 5000 steps of 4 rows, as of
August 2026), which tried some types at two or three rates.
"""

from __future__ import annotations

from dataclasses import dataclass

LIKE_LORA = 2e-4
"""Of LoRA ("LoRA Without Regret", Schulman et al. 2025; QLoRA, arXiv:2305.14314), and of every type not listed."""


@dataclass(frozen=True, slots=True)
class Family:
    """Types of PEFT that train at one rate."""

    what: str
    rate: float
    source: str
    types: frozenset[str]


def _family(what: str, rate: float, types: str, source: str) -> Family:
    return Family(what, rate, source, frozenset(types.split()))


FAMILIES = (
    _family(
        "base weights, within a subspace",
        5e-5,
        "osf",
        "PEFT's comparison",
    ),
    _family(
        "vectors that scale or shift, and factors of products with weights that stay as they are",
        3e-3,
        "ia3 beft vera pvera fourierft hira lokr",
        "(IA)³ 3e-3 (Liu et al. 2022, arXiv:2205.05638), VeRA 4e-3 (Kopiczko et al. 2023, arXiv:2310.11454), FourierFT "
        "3e-3 (Gao et al. 2024, arXiv:2405.03003); in PEFT's comparison (IA)³ is better at 5e-3 than at 1e-3, and "
        "there than at 1e-4",
    ),
    _family(
        "angles, directions, norms, and vectors that many layers share",
        1e-3,
        "road delora ln_tuning vblora tinylora unilora",
        "PEFT's comparison for RoAd, DeLoRA and TinyLoRA; VB-LoRA's vector bank 1e-3 (Li et al. 2024, "
        "arXiv:2405.15179); at 1e-4, LN tuning and Uni-LoRA learned nothing in PEFT's comparison",
    ),
    _family(
        "embeddings of a prompt or of single tokens",
        1e-3,
        "prompt_tuning multitask_prompt_tuning p_tuning cpt trainable_tokens",
        "in PEFT's comparison prompt tuning is better at 1e-3 than at 1e-4",
    ),
    _family(
        "keys and values of attention",
        5e-3,
        "prefix_tuning cartridge adaption_prompt",
        "in PEFT's comparison prefix tuning is better at 5e-3 than at 1e-3, adaption prompts than at 5e-4",
    ),
    _family(
        "circular convolutions",
        0.3,
        "c3a",
        "PEFT's comparison",
    ),
)


def usual_rate(peft_type: str) -> float:
    """Return the rate that suits one of PEFT's types, by PEFT's own name of it."""
    return next((family.rate for family in FAMILIES if peft_type in family.types), LIKE_LORA)
