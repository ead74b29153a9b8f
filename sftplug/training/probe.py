"""What a model says of one row of the run, to be compared with what a model says that is loaded again."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from sftplug.training.checkpointing import CheckpointingTrainer

PROBED = 32
"""So many tokens of one row are compared."""
ALLOWED = {"float32": 1e-3, "float16": 1e-2, "bfloat16": 1e-2}
"""Numbers of the base -> by how much logits may differ, as a share of the largest.

Both sides compute the same in the same numbers, with the adapter in fp32, so nearly all differ by nothing; of 49 types
on four bases none that is read back right by more than 1e-6. bf16 rounds to 3.9e-3: two roundings the other way are
allowed. What is not read back differs by more than that: by 2.6e-2 where `adalora` is rounded, by 2 where PiSSA draws
another start.
"""


class DiffersError(Exception):
    """What is read back is not what was saved."""

    def __init__(self, text: str, remedy: str | None = None) -> None:
        """Say what differs, and what to do where that is not for the adapter and the quantization to say."""
        super().__init__(text)
        self.remedy = remedy


class Probe:
    """A row of the run, and what the trained model says of it."""

    def __init__(self, trainer: CheckpointingTrainer) -> None:
        """Remember the model and the row; nothing is computed yet."""
        self.live: Any = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
        self.ids = list(trainer.train_dataset[0]["input_ids"])[:PROBED]

    @cached_property
    def expected(self) -> Tensor:
        """(L, V) the logits of the model in memory."""
        return logits_of(self.live, self.ids)

    def compare(self, model: Any, how: str) -> None:
        """Raise DiffersError when `model`, which was loaded again `how`, says something else."""
        expected, got = self.expected, logits_of(model, self.ids)
        if got.shape != expected.shape:
            raise DiffersError(
                f"the logits of what is loaded again are {tuple(got.shape)}, not {tuple(expected.shape)}"
            )
        apart = float((got - expected).abs().max()) / max(1.0, float(expected.abs().max()))
        allowed = ALLOWED.get(str(self.live.dtype).removeprefix("torch."), 1e-3)
        if not apart <= allowed:
            raise DiffersError(
                f"loaded again {how} it says something else: logits differ by {apart:.1e} of the largest, and "
                f"{allowed:.0e} is rounding"
            )


def logits_of(model: Any, ids: list[int]) -> Tensor:
    """Return (L, V) the logits of one row."""
    import torch

    model.eval()
    with torch.no_grad():
        logits: Tensor = model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits
    return logits[0].float().cpu()
