"""Low-rank adaptation: small matrices beside frozen weights."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PrivateAttr

from sftplug import Adapter, Field, require
from sftplug_adapters.effects import FROM_WEIGHTS, problems_of_options
from sftplug_adapters.targets import Memo, Search, Targets

if TYPE_CHECKING:
    from torch import nn

    from sftplug import Recipe

ALL_LINEAR: Literal["all-linear"] = "all-linear"


class Lora(Adapter):
    """Train low-rank updates of linear layers (Hu et al. 2021, arXiv:2106.09685)."""

    variants = {  # noqa: RUF012 - as the base class has it
        "dora": "dora: true",
        "rslora": "rslora: true",
        "pissa": "init: pissa",
        "olora": "init: olora",
    }

    type: Literal["lora"] = "lora"
    r: int = Field(16, gt=0)
    """Rank of the update matrices. Where `targets` names two projections that experts hold in one tensor, of each."""
    alpha: float = Field(32, gt=0)
    """The update is scaled by alpha / r (by alpha / sqrt(r) with `rslora`)."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the input of the update; not with experts."""
    targets: Literal["all-linear"] | list[str] = ALL_LINEAR
    """Modules that are adapted: every linear layer and expert but head and routers, or names such as ``q_proj``."""
    exclude: list[str] = Field(default_factory=list)
    """Modules that are left out though they match, as patterns of whole names: ``*.experts``, ``*.layers.0.*``."""
    bias: Literal["none", "all", "lora_only"] = "none"
    """Which biases are trained too."""
    dora: bool = False
    """Split weights into magnitude and direction (Liu et al. 2024, arXiv:2402.09353)."""
    rslora: bool = False
    """Scale by alpha / sqrt(r), stable at high ranks (Kalajdzievski 2023, arXiv:2312.03732)."""
    init: Literal["default", "gaussian", "pissa", "olora", "orthogonal"] = "default"
    """How the matrices start: ``default`` makes the update zero; ``pissa`` and ``olora`` take it from the weights."""
    modules_to_save: list[str] | None = None
    """Modules that are trained whole and saved with the adapter, such as ``embed_tokens``."""

    _memo: Memo = PrivateAttr(default_factory=Memo)

    def train_defaults(self, recipe: Recipe) -> Mapping[str, Any]:
        """Return ten times the rate of full fine-tuning, decaying linearly after a warmup over 3 % of the updates.

        Rate: "LoRA Without Regret" (Schulman et al. 2025, https://thinkingmachines.ai/blog/lora), whatever the rank,
        for the update is scaled by alpha / r; 2e-4 too in Hu et al. 2021 (arXiv:2106.09685, GPT-2 and GPT-3) and in
        QLoRA (arXiv:2305.14314, up to 13 billion parameters; 1e-4 beyond). Linear decay after a warmup: Hu et al.;
        3 %: QLoRA.
        """
        return {"learning_rate": 2e-4, "lr_scheduler_type": "linear", "warmup_steps": 0.03}

    def check(self, recipe: Recipe) -> Iterable[str]:
        """Say so when the initialization needs the weights as floats."""
        self._memo.float_base = recipe.quantization.bits >= 16
        if self.init in FROM_WEIGHTS and not self._memo.float_base:
            yield f"`init: {self.init}` computes with the weights, which are {recipe.quantization.type}. Use `default`."

    def check_model(self, model: nn.Module) -> Iterable[str]:
        """Say so when a target matches no module, or cannot be adapted with these options."""
        search = self._search(model)
        named = None if self.targets == ALL_LINEAR else self.targets
        problems = [*search.problems(named or ()), *search.without_effect(named)]
        problems += search.missing(self.modules_to_save or ())
        found = self._remember(search)
        yield from [*problems, *problems_of_options(self, search, found)]
        if not problems and not (found.modules or found.parameters):
            yield "no module is left to adapt: `exclude` and `modules_to_save` leave nothing of `targets`."

    def prepare_model(self, model: nn.Module) -> None:
        """Find what is adapted; the weights stay as they are."""
        self._remember(self._search(model))

    def _remember(self, search: Search) -> Targets:
        """Return what is adapted, and keep what PEFT is told of the model."""
        found = self._memo.targets = self._find(search)
        self._memo.tied, self._memo.whole = search.saves_tied(), search.saved_whole()
        self._memo.turned = bool(found.modules) and all(search.is_a(name, "Conv1D") for name in found.modules)
        return found

    def _search(self, model: nn.Module) -> Search:
        return Search(model, self.exclude, self.modules_to_save or (), self._memo.float_base)

    def _find(self, search: Search) -> Targets:
        return search.all_linear() if self.targets == ALL_LINEAR else search.named(self.targets)

    def peft_config(self) -> Any:
        """Return PEFT's own configuration; once the model is known, with the very modules and tensors of it."""
        peft = require("peft", needed_by=f"adapter {self.type}")
        return peft.LoraConfig(
            task_type="CAUSAL_LM",
            r=self.r,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            bias=self.bias,
            fan_in_fan_out=self._memo.turned,
            use_dora=self.dora,
            use_rslora=self.rslora,
            init_lora_weights=True if self.init == "default" else self.init,
            modules_to_save=self.modules_to_save if self._memo.whole is None else self._memo.whole,
            **({"ensure_weight_tying": True} if self._memo.tied else {}),
            **self._targets_for_peft(),
        )

    def _targets_for_peft(self) -> dict[str, Any]:
        found = self._memo.targets
        if found is None:
            pattern = "|".join(map(fnmatch.translate, self.exclude)) or None
            return {"target_modules": self.targets, "exclude_modules": pattern}
        # Block, holder and tensor: ``mlp.experts.gate_up_proj``.
        ends = sorted({re.escape(".".join(name.split(".")[-3:])) for name in found.pairs})
        # One update of rank 2 r holds two of rank r, as PEFT itself makes of these names. Its scale, alpha / r or
        # alpha / sqrt(r), stays that of all others.
        alpha = self.alpha * (math.sqrt(2) if self.rslora else 2)
        return {
            "target_modules": list(found.modules),
            "target_parameters": list(found.parameters) or None,
            "rank_pattern": {rf".*\.{end}": 2 * self.r for end in ends},
            "alpha_pattern": {rf".*\.{end}": alpha for end in ends},
        }


class QLora(Lora):
    """LoRA on a 4-bit base (Dettmers et al. 2023, arXiv:2305.14314); picks `nf4` when no quantization is named."""

    type: Literal["qlora"] = "qlora"  # type: ignore[assignment]
    default_quantization = "nf4"

    def check(self, recipe: Recipe) -> Iterable[str]:
        """Say so when the base is not held in 4 bits."""
        if recipe.quantization.bits != 4:
            yield (
                f"'qlora' needs a 4-bit base, and the recipe's is {recipe.quantization.type}. "
                "Leave `quantization` out, choose `nf4` or `fp4`, or use the adapter `lora`."
            )
        yield from super().check(recipe)
