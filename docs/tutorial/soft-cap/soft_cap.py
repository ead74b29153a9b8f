from typing import Any, ClassVar, Literal

from sftplug import Field, ModelPatch, hookimpl


class SoftCap(ModelPatch):
    """Keep logits between -cap and cap, so that none runs away; Gemma 2 was trained so (arXiv:2408.00118)."""

    type: Literal["soft_cap"] = "soft_cap"
    changes_logits: ClassVar[bool] = True
    cap: float = Field(30.0, gt=0, description="Bound of the logits.")

    def after_loading(self, model: Any) -> None:
        model.get_output_embeddings().register_forward_hook(lambda _, __, x: self.cap * (x / self.cap).tanh())

    def loading_code(self) -> str:
        capped = f"lambda _, __, x: {self.cap} * (x / {self.cap}).tanh()"
        return f"model.get_output_embeddings().register_forward_hook({capped})"


@hookimpl
def sftplug_model_patches() -> list[type[ModelPatch]]:
    return [SoftCap]
