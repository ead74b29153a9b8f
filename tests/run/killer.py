"""A plugin that kills its own process, once, at a moment of the run; with `at: never` it does nothing."""

import os
import resource
import signal
from pathlib import Path
from typing import Literal

import sftplug


class Killer(sftplug.Callback):
    """Kill the process at a moment."""

    type: Literal["killer"] = "killer"
    folder: str
    """Holds `plan`, a line a blow: the moment, the step and the signal; a line is deleted before the blow."""

    def trainer_callback(self):
        """Return the callback."""
        from transformers import TrainerCallback
        from transformers.trainer_callback import ExportableState

        plan = Path(self.folder) / "plan"

        def strike(moment, step):
            while plan.exists() and plan.read_text().split()[:2] == [moment, str(step)]:
                what = plan.read_text().split()[2]
                rest = plan.read_text().splitlines()[1:]
                plan.write_text("\n".join(rest)) if rest else plan.unlink()
                if what == "FULL":  # no file may grow beyond what a disk with so little room would hold
                    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
                else:
                    os.kill(os.getpid(), signal.Signals[what])

        class Strike(TrainerCallback, ExportableState):
            step = 0

            def state(self):
                # Asked for in the midst of a checkpoint: the optimizer is written, the trainer's state is not.
                strike("checkpoint", self.step)
                return {"args": {}, "attributes": {"step": self.step}}

            def on_step_end(self, args, state, control, **kwargs):
                self.step = state.global_step
                strike("step", state.global_step)

            def on_prediction_step(self, args, state, control, **kwargs):
                strike("eval", state.global_step)

        return Strike()


@sftplug.hookimpl
def sftplug_callbacks():
    """Offer the killer."""
    return [Killer]


@sftplug.hookimpl
def sftplug_trainer_created(recipe, trainer):
    """Strike when the weights of the result are saved, and the rest is not."""
    plan = Path(recipe.callbacks[0].folder) / "plan"
    save = trainer.save_model

    def save_and_strike(folder, **kwargs):
        save(folder, **kwargs)
        if "_internal_call" not in kwargs and plan.exists() and plan.read_text().startswith("save "):
            plan.unlink()
            os.kill(os.getpid(), signal.SIGKILL)

    trainer.save_model = save_and_strike
