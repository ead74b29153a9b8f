"""What of saving can fail is tried before the first step: of a large model without its weights, and a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftplug.errors import ModelError
from sftplug.model.weight_files import foresee_saving
from sftplug.run import checkpoints
from sftplug.storage.disk import free_bytes
from sftplug.training.probe import DiffersError
from sftplug.util.arguments import argument

if TYPE_CHECKING:
    from torch import nn

    from sftplug.training.checkpointing import CheckpointingTrainer
    from sftplug.training.model_state import TrainedState


def rehearse_whole(trainer: CheckpointingTrainer, folder: Path, save_beside: Callable[[Path], None]) -> None:
    """Write to `folder` what belongs to the trainer's model beside its weights, which are looked at without content.

    Raises DiffersError when they could not be loaded again, or there is no room for them; and what libraries raise.
    """
    model: Any = trainer.model
    model.save_pretrained(folder, state_dict={})
    save_beside(folder)
    try:
        foresee_saving(model)
    except ModelError as error:
        raise DiffersError(f"its weights would not be found again: {error}") from error
    _refuse_full(trainer, folder.parent)


def bytes_of(model: nn.Module) -> int:
    """Return how many bytes the weights of a model take."""
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def _refuse_full(trainer: CheckpointingTrainer, output: Path) -> None:
    """Raise DiffersError where the disk cannot hold the result, and beside it the last checkpoint if the run saves any.

    What the optimizer adds to a checkpoint is not counted: it is not made yet. What is there already is written over.
    """
    # Not above: the libraries are imported with it, and are to be silenced before.
    from sftplug.training.callback_state import is_resumable

    saved = is_resumable(trainer.args) and not checkpoints.folders(output)
    there = sum(file.stat().st_size for file in output.glob("*.safetensors"))
    needed, free = bytes_of(trainer.model) * (1 + saved) - there, free_bytes(output)
    if needed > free:
        what = "the result and a checkpoint" if saved else "the result"
        raise DiffersError(
            f"the weights of {what} take {needed:,} bytes, and {free:,} are free where {output} is",
            f"Make room, or choose another {argument('--output')}.",
        )


def compare_given_back(held: TrainedState, model: nn.Module, folder: Path) -> None:
    """Raise DiffersError when what is trained does not come back from a checkpoint, as it must for the best one."""
    if held.whole:
        return  # its files are compared tensor by tensor
    import torch

    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    first = {name: value.detach().clone() for name, value in trained.items()}
    try:
        with torch.no_grad():
            for value in trained.values():
                value.add_(1)
        held.read(folder)
        lost = [name for name, value in trained.items() if not torch.equal(value, first[name])]
    finally:
        with torch.no_grad():
            for name, value in trained.items():
                value.copy_(first[name])
    if lost:
        raise DiffersError(f"a checkpoint does not give back {len(lost)} trained tensors, such as {lost[0]}")
