from typing import Any, Literal

from sftplug import Callback, Field, hookimpl, require


class FrozenCallback(Callback):
    """Stop as soon as the loss is low enough: from there on, rows are learned by heart."""

    type: Literal["frozen_callback"] = "frozen_callback"
    loss: float = Field(0.1, gt=0)
    """The training loss, as it is logged, at which to stop."""

    def trainer_callback(self) -> Any:
        class Watch(require("transformers", needed_by=self.type).TrainerCallback):  # type: ignore[misc]
            def on_log(_, args: Any, state: Any, control: Any, logs: Any, **kwargs: Any) -> None:
                control.should_training_stop |= logs.get("loss", self.loss) < self.loss

        return Watch()


@hookimpl
def sftplug_callbacks() -> list[type[Callback]]:
    return [FrozenCallback]
