import json
from typing import Literal

from sftplug import Callback, Field, RecipeSection, hookimpl, require


class Ticket(RecipeSection):
    """For which ticket of the team a run is made, and when it is given up."""

    type: Literal["beta_ticket"] = "beta_ticket"
    number: int | None = Field(None, gt=0)
    """The ticket's number; without one, nothing is written."""
    worst_loss: float = Field(100.0, gt=0)
    """The training is stopped at a loss above this one."""


class GiveUp(Callback):
    """Stop when the loss is worse than the ticket allows."""

    type: Literal["beta_give_up"] = "beta_give_up"

    def trainer_callback(self):
        ticket = self.section(Ticket)

        class Watch(require("transformers", needed_by=self.type).TrainerCallback):
            def on_log(self, args, state, control, logs=None, **kwargs):
                control.should_training_stop |= logs.get("loss", 0.0) > ticket.worst_loss

        return Watch()


@hookimpl
def sftplug_recipe_sections():
    return [Ticket]


@hookimpl
def sftplug_callbacks():
    return [GiveUp]


@hookimpl
def sftplug_run_finished(recipe, result):
    if (number := recipe.section(Ticket).number) is not None:
        (result.output / "ticket.json").write_text(json.dumps({"ticket": number, "loss": result.loss}))
