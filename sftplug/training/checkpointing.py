"""TRL's trainer with checkpoints that are whole: all is in them that a run is resumed with, or they are none."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftplug.run import checkpoints
from sftplug.run.failure import explaining
from sftplug.training.chosen_optimizer import OptimizingTrainer
from sftplug.training.model_state import REST

if TYPE_CHECKING:
    from sftplug.training.callback_state import Carried
    from sftplug.training.model_state import TrainedState


class CheckpointingTrainer(OptimizingTrainer):
    """Writes checkpoints that give back what they were told to hold, and seals them."""

    keep = checkpoints.Retained()
    """Which checkpoints are kept; the trainer itself would delete an old one before the new one is whole."""
    while_saving: Callable[[], AbstractContextManager[None]] = nullcontext
    """Entered while a checkpoint is written."""
    held: TrainedState | None = None
    """What the model holds that the trainer's own checkpoint may not."""
    carried: Sequence[Carried] = ()
    """What the recipe's callbacks remember, and the components that are called at every step."""
    write_adapter: Callable[[Any, Path], None] | None = None
    """Writes an adapter that is no type of PEFT to a folder; PEFT's, and whole models, the trainer writes itself."""

    @abstractmethod
    def _progress(self) -> dict[str, Any]:
        """Return what is counted and summed up between two logs."""

    # --- write --------------------------------------------------------------------------------------------------------

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint, then seal it: only then is it one, and may an older one go."""
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            # A run that was killed as it wrote this checkpoint has left a part of it, of which nothing may count as
            # written now.
            checkpoints.discard(folder)
        # Nobody writes into the folder before what was in it is gone.
        self.accelerator.wait_for_everyone()
        with self.while_saving(), explaining(f"{folder.name} cannot be written", folder.parent):
            try:
                super()._save_checkpoint(model, trial)
                if self.held is not None and self.args.should_save and not self.splits_model():
                    self.held.write(folder)
                for carried in self.carried:
                    carried.write(folder, self.args.process_index)
                checkpoints.write_progress(folder, self.args.process_index, self._progress())
                # The seal lists what all processes have written, so all of them must be done.
                self.accelerator.wait_for_everyone()
                if self.args.should_save:
                    self._seal(folder)
                # A launcher ends the others when one process is gone: none goes on before the checkpoint is whole.
                self.accelerator.wait_for_everyone()
            except Exception:
                checkpoints.discard(folder)  # makes room again
                raise

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Write weights and tokenizer: of an adapter that saves itself, what it says."""
        if self.write_adapter is None:
            super()._save(output_dir, state_dict)
        elif self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            self.write_adapter(self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False), folder)
            self.processing_class.save_pretrained(str(folder))

    def _seal(self, folder: Path) -> None:
        # A pickle of the trainer's options, secrets and all, that nothing reads.
        (folder / "training_args.bin").unlink(missing_ok=True)
        resumable = not self.args.save_only_model
        if resumable:
            checkpoints.mark_complete(folder)
        checkpoints.rotate(folder.parent, self.keep, self.state.best_model_checkpoint, sealed=resumable)

    # --- read ---------------------------------------------------------------------------------------------------------

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Give the model back all that is trained."""
        if self.splits_model() or self.held is None:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            self._give_back(Path(resume_from_checkpoint), super()._load_from_checkpoint, resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        """Give the model back what was trained up to the best checkpoint."""
        best = self.state.best_model_checkpoint
        if self.splits_model() or self.held is None or not (Path(best) / REST).is_file():
            super()._load_best_model()
        else:
            self._give_back(Path(best), super()._load_best_model)

    def _give_back(self, folder: Path, load: Callable[..., None], *arguments: Any) -> None:
        """Read a checkpoint: of a whole model with the trainer's own `load`, which does not find all that it saves.

        PEFT's own loading of an adapter is not asked: it knows no more than inference needs, and rounds some.
        """
        assert self.held is not None
        if self.held.whole:
            load(*arguments)
        self.held.read(folder, only_rest=self.held.whole)

    def splits_model(self) -> bool:
        """Whether processes share the model, and what shares it reads and writes checkpoints in a way of its own."""
        return bool(self.is_deepspeed_enabled or self.is_fsdp_enabled)
