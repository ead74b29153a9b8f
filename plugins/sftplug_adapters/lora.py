"""Low-rank adaptation: small matrices beside frozen weights."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from sftplug import Adapter, Field, did_you_mean, require

if TYPE_CHECKING:
    from torch import nn

    from sftplug import Recipe

ALL_LINEAR: Literal["all-linear"] = "all-linear"


class Lora(Adapter):
    """Train low-rank updates of linear layers (Hu et al. 2021, arXiv:2106.09685)."""

    type: Literal["lora"] = "lora"
    r: int = Field(16, gt=0)
    """Rank of the update matrices."""
    alpha: float = Field(32, gt=0)
    """The update is scaled by alpha / r (by alpha / sqrt(r) with `rslora`)."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the input of the update."""
    targets: Literal["all-linear"] | list[str] = ALL_LINEAR
    """Modules that are adapted: every linear layer but the head, or names such as ``q_proj``."""
    exclude: list[str] = Field(default_factory=list)
    """Modules that are left out though they match, as patterns of whole names: ``*vision_tower*``."""
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

    def check(self, recipe: Recipe) -> Iterable[str]:
        """Say so when the initialization needs the weights as floats."""
        if self.init in ("pissa", "olora", "orthogonal") and recipe.quantization.bits < 16:
            yield f"`init: {self.init}` computes with the weights, which are {recipe.quantization.type}. Use `default`."

    def check_model(self, model: nn.Module) -> Iterable[str]:
        """Say so when a target matches no module, or is the head."""
        everything = [name for name, _ in model.named_modules() if name]
        modules = [name for name in everything if not any(fnmatch.fnmatch(name, pattern) for pattern in self.exclude)]
        ends = {name.rpartition(".")[2] for name in modules if not name.rpartition(".")[2].isdigit()}
        wanted = [*([] if self.targets == ALL_LINEAR else self.targets), *(self.modules_to_save or ())]
        for target in wanted:
            if not any(name == target or name.endswith(f".{target}") for name in modules):
                yield (
                    f"target '{target}' matches no module of the model.{did_you_mean(target, ends)} "
                    f"Its modules: {', '.join(sorted(ends))}."
                )
            if target == "lm_head" and target in self.targets:
                yield "target 'lm_head' would be ignored by the fused loss. Put it under `modules_to_save`."

        for pattern in self.exclude:
            if not fnmatch.filter(everything, pattern):
                yield f"`exclude: {pattern}` matches no module of the model. One is called {modules[-1]}."

    def peft_config(self) -> Any:
        """Return PEFT's own configuration."""
        peft = require("peft", needed_by=f"adapter {self.type}")
        return peft.LoraConfig(
            task_type="CAUSAL_LM",
            r=self.r,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=self.targets,
            exclude_modules="|".join(map(fnmatch.translate, self.exclude)) or None,
            bias=self.bias,
            use_dora=self.dora,
            use_rslora=self.rslora,
            init_lora_weights=True if self.init == "default" else self.init,
            modules_to_save=self.modules_to_save,
        )


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
