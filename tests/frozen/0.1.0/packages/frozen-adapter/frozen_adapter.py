from typing import Any, Literal

from sftplug import Adapter, Field, hookimpl, require


class FrozenAdapter(Adapter):
    """Train one factor for each output of the modules (IA3, Liu et al. 2022, arXiv:2205.05638)."""

    type: Literal["frozen_adapter"] = "frozen_adapter"
    targets: list[str] = Field(["k_proj", "v_proj"], min_length=1)
    """Modules whose outputs are rescaled."""

    def peft_config(self) -> Any:
        peft = require("peft", needed_by=self.type)
        return peft.IA3Config(task_type="CAUSAL_LM", target_modules=[*self.targets], feedforward_modules=[])


@hookimpl
def sftplug_adapters() -> list[type[Adapter]]:
    return [FrozenAdapter]
