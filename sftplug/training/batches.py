"""The batches of a step: in which order rows come, what their loss is divided by, and which rows they are."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler

from sftplug.errors import TrainingError
from sftplug.training.checkpointing import CheckpointingTrainer
from sftplug.training.collator import SeededByEpoch, blank_rows
from sftplug.types.tokens import IGNORED

if TYPE_CHECKING:
    from torch import Tensor

    from sftplug.data.origins import Origins

_SHOWN = 20
"""How many rows of a batch are named."""


class BatchTrainer(CheckpointingTrainer):
    """TRL's trainer, with an order of rows that a resumed run repeats, and rows that can be named when a step fails."""

    origins: Origins | None = None
    """Where the training rows came from, for the message of a run that is stopped."""
    _micro_batch = 0
    """How many micro-batches of the step under way are done."""

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        """Return the trainer's sampler; the one that groups by length draws anew each epoch, from seed and epoch only.

        By itself it draws from the global random state, which is another one when a run is resumed in its second epoch.
        """
        sampler = super()._get_train_sampler(*args, **kwargs)
        if not isinstance(sampler, LengthGroupedSampler):
            return sampler
        # Batches go to the processes in turn: group for all of them, so that each step has the rows of one process's.
        sampler.batch_size *= self.args.world_size
        return SeededByEpoch(sampler, self.args)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        """Return the micro-batches of a step and what their loss is divided by: the sum of the weights.

        None after the last step: a run resumed from its last checkpoint has nothing left to do.
        """
        # The trainer may ask for a step that is not to be taken any more, and would draw rows for it.
        if 0 < self.state.max_steps <= self.state.global_step or self.control.should_training_stop:
            return [], None
        self._micro_batch = 0
        batches, count = super().get_batch_samples(*args, **kwargs)
        # The libraries have counted the labels of all processes; those of rows that only fill up are taken off again.
        if batches and count is not None and self.accelerator.num_processes > 1:
            repeated = torch.tensor([self._without_repeated_rows(batches[-1], len(batches))], device=self.args.device)
            count = count - self.accelerator.gather(repeated).sum()
        if batches and "weights" in batches[0]:
            # Without the first column: nothing predicts the first token of a row.
            count = torch.stack([batch["weights"][:, 1:].sum() for batch in batches]).sum().to(self.args.device)
            if self.args.average_tokens_across_devices:
                count = self.accelerator.gather(count).sum()
        return batches, count

    def _without_repeated_rows(self, batch: dict[str, Tensor], count: int) -> int:
        """Take rows out of the loss that only fill up the last batches of an epoch; return how many labels that were.

        All processes take as many steps, so the last of them get rows of the epoch's beginning beside their own.
        `batch` is the last of `count` micro-batches.
        """
        size, processes = self._train_batch_size, self.accelerator.num_processes
        rest = len(self.train_dataset) % (size * processes)
        if not rest or self.args.dataloader_drop_last or self._epoch_so_far()[1] + count < self._batches_in_epoch():
            return 0
        # 10 rows, 2 processes, batches of 4: for the second step 2 rows are left; process 0 has both, process 1 has
        # none of its own.
        own = min(max(rest - self.args.process_index * size, 0), size)
        before = int((batch["labels"][:, 1:] != IGNORED).sum())
        blank_rows(batch, own, size)
        return before - int((batch["labels"][:, 1:] != IGNORED).sum())

    # --- which rows they are, and what is wrong with them -------------------------------------------------------------

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        """Return the gradient's norm. Raises TrainingError when it is not finite, before the weights are updated."""
        norm = super()._get_grad_norm(*args, **kwargs)
        # With fp16 the scaler leaves out such a step by itself and tries a smaller scale.
        if norm is not None and self.accelerator.scaler is None and not torch.isfinite(torch.as_tensor(norm)):
            where = self._rows_text(0, self._micro_batch)
            raise self._harm("gradient's norm at", float(norm), "A lower learning rate", where)
        return norm

    def _harm(self, what: str, value: float, remedy: str, where: str) -> TrainingError:
        step = self.state.global_step + 1
        return TrainingError(
            f"the {what} step {step} is {value}. No checkpoint was written after step {step - 1}.{where} "
            f"{remedy}, or bf16 in place of fp16 usually helps."
        )

    def _rows_text(self, first: int, count: int) -> str:
        """Name the rows of `count` micro-batches of this step, from the `first` on."""
        origins = self.origins.of(self.rows_of_step(first, count)) if self.origins is not None else []
        more = f" and {len(origins) - _SHOWN} more" if len(origins) > _SHOWN else ""
        return f" The rows of that batch: {', '.join(origins[:_SHOWN])}{more}." if origins else ""

    def rows_of_step(self, first: int, count: int) -> list[int]:
        """Return the training rows in `count` micro-batches of the step under way, drawn once more from the sampler."""
        epoch, seen = self._epoch_so_far()
        # The order of an epoch follows from the seed and its number, so it can be drawn again; no row is read for that.
        loader = self.callback_handler.train_dataloader
        loader.set_epoch(epoch)
        batches = islice(iter(loader.batch_sampler), seen + first, seen + first + count)
        return [int(row) for batch in batches for row in batch]

    def _epoch_so_far(self) -> tuple[int, int]:
        """Return the epoch, from 0, and how many of its micro-batches belong to steps that are done."""
        # Epoch 1.25 with 8 micro-batches an epoch is (1, 2).
        progress = float(self.state.epoch or 0)
        return int(progress), round((progress - int(progress)) * self._batches_in_epoch())

    def _batches_in_epoch(self) -> int:
        return len(self.callback_handler.train_dataloader)
