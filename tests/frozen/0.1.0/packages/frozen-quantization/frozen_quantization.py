from typing import Any, Literal

from sftplug import Quantization, hookimpl, require


class FrozenQuantization(Quantization):
    """Feed-forward layers, where most weights are, in 8 bits; attention and head in 16 (bitsandbytes)."""

    type: Literal["frozen_quantization"] = "frozen_quantization"
    bits, keeps_inputs = 8, True
    keep: tuple[str, ...] = ("self_attn", "lm_head")
    """Modules that are not quantized."""

    def load_kwargs(self) -> dict[str, Any]:
        torch, transformers = (require(library, needed_by=self.type) for library in ("torch", "transformers"))
        config = transformers.BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=[*self.keep])
        return {"dtype": torch.bfloat16, "quantization_config": config}


@hookimpl
def sftplug_quantizations() -> list[type[Quantization]]:
    return [FrozenQuantization]
