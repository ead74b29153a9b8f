"""The one subclass of TRL's trainer, and the collator that feeds it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import LengthGroupedSampler
from trl import SFTTrainer

from sftplug.errors import TrainingError
from sftplug.loop import Clock
from sftplug.run import checkpoints
from sftplug.run.failure import explaining

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sftplug.data.origins import Origins

IGNORED = -100


@dataclass(frozen=True, slots=True)
class Collator:
    """Makes one batch of rows: padded on the right, or laid end to end.

    Padding is marked by position, so a padding token may be any token.
    """

    pad_token_id: int
    pad_to_multiple_of: int = 1
    flat: bool = False
    """Lay the rows end to end, as FlashAttention takes them: position ids tell it where each begins."""

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Return a batch of shape (B, L), or (1, sum of the lengths) for a flat one.

        ``input_ids``, ``labels``, ``weights`` if rows have them, and ``attention_mask``; for rows of several documents
        in place of the mask ``position_ids`` that start anew with each document and with the padding.
        ``real_tokens``: (B,) how many tokens of each row are no padding.
        """
        if self.flat:
            rows = [_end_to_end(rows)]
        longest = max(len(row["input_ids"]) for row in rows)
        length = -(-longest // self.pad_to_multiple_of) * self.pad_to_multiple_of
        batch = {
            "input_ids": self._padded(rows, "input_ids", length, self.pad_token_id),
            "labels": self._padded(rows, "labels", length, IGNORED),
            "real_tokens": torch.tensor([len(row["input_ids"]) for row in rows]),
        }
        if "weights" in rows[0]:
            batch["weights"] = self._padded(rows, "weights", length, 0.0)
        if "seq_lengths" in rows[0]:
            # A mask beside them, even of ones, would switch off the block-diagonal mask that they stand for.
            batch["position_ids"] = torch.stack([_positions(row["seq_lengths"], length) for row in rows])
        else:
            batch["attention_mask"] = (torch.arange(length) < batch["real_tokens"][:, None]).long()
        return batch

    @staticmethod
    def _padded(rows: Sequence[Mapping[str, Any]], key: str, length: int, filler: float) -> Tensor:
        return torch.tensor([[*row[key], *[filler] * (length - len(row[key]))] for row in rows])


def _end_to_end(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return one row of all; the first token of each is no label, for it would be predicted from the row before."""
    fillers = {"labels": IGNORED, "weights": 0.0}
    joined: dict[str, list[Any]] = {"seq_lengths": [len(row["input_ids"]) for row in rows]}
    for key in ("input_ids", "labels", "weights"):
        if key in rows[0]:
            joined[key] = [item for row in rows for item in [fillers.get(key, row[key][0]), *row[key][1:]]]
    return joined


def _positions(lengths: Sequence[int], length: int) -> Tensor:
    """Return (length,) positions that start anew with each document; the padding is a document of its own."""
    padding = length - sum(lengths)
    return torch.cat([torch.arange(part) for part in (*lengths, padding)])


class SftplugTrainer(SFTTrainer):  # type: ignore[misc]
    """`SFTTrainer` with a loss that knows weights other than 0 and 1, and with checkpoints that are whole.

    The loss of a batch is ``sum(w * nll) / sum(w)`` over all tokens of all micro-batches of a step, whatever the
    micro-batches; with weights of 0 and 1 that is TRL's own loss. On CPUs, where TRL's fused head scores every
    position, only the trained positions are scored: equal, and several times faster on small models.
    """

    _total_train_tokens: int
    _tr_loss: Tensor
    _total_loss_scalar: float
    clock: Clock = Clock()
    """Runs while the trainer trains; a checkpoint holds what it says."""
    keep: int | None = None
    """How many checkpoints are kept; the trainer itself would delete an old one before the new one is whole."""
    origins: Origins | None = None
    """Where the training rows came from, for the message of a run that is stopped."""
    _micro_batch = 0
    """How many micro-batches of the step under way are done."""

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        """Return the trainer's sampler; the one that groups by length draws anew each epoch, from seed and epoch only.

        By itself it draws from the global random state, which is another one when a run goes on in its second epoch.
        """
        sampler = super()._get_train_sampler(*args, **kwargs)
        return SeededByEpoch(sampler, self.args) if isinstance(sampler, LengthGroupedSampler) else sampler

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        """Return the micro-batches of a step and what their loss is divided by: the sum of the weights.

        None after the last step: a run that goes on from its last checkpoint has nothing left to do.
        """
        if 0 < self.state.max_steps <= self.state.global_step or self.control.should_training_stop:
            return [], None
        self._micro_batch = 0
        batches, count = super().get_batch_samples(*args, **kwargs)
        if batches and "weights" in batches[0]:
            total = torch.stack([batch["weights"][:, 1:].sum() for batch in batches]).sum()
            count = self.accelerator.gather(total.to(self.args.device)).sum()
        return batches, count

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the loss of a micro-batch. Raises TrainingError when it is not finite."""
        weights, real = inputs.pop("weights", None), inputs.pop("real_tokens", None)
        seen, on_cpu = self._total_train_tokens, inputs["input_ids"].device.type == "cpu"
        if return_outputs or self.aux_loss_enabled or (weights is None and not on_cpu):
            result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            self._total_train_tokens = seen
        else:
            result = self._weighted_loss(model, inputs, weights, num_items_in_batch)
        self._refuse_infinite(result[0] if return_outputs else result)
        if real is not None:
            self._count_tokens(real)
        if self.model.training:
            self._micro_batch += 1
        return result

    def _weighted_loss(self, model: nn.Module, inputs: dict[str, Any], weights: Tensor | None, items: Any) -> Tensor:
        """Return ``sum(w * nll)`` over the micro-batch, divided by the sum of the weights of the whole step."""
        labels = inputs["labels"]
        weights = (labels != IGNORED).float() if weights is None else weights
        nll, shifted = self._token_losses(model, inputs, labels), weights[:, 1:]
        total = shifted.sum() if items is None else items
        loss: Tensor = (nll * shifted).sum() / torch.as_tensor(total).clamp(min=1e-8)
        if self.args.average_tokens_across_devices and items is not None:
            loss = loss * self.accelerator.num_processes
        return loss

    def _token_losses(self, model: nn.Module, inputs: dict[str, Any], labels: Tensor) -> Tensor:
        """Return (B, L-1) the negative log-likelihood of each token but the first; 0 where the label is ignored."""
        if labels.device.type != "cpu":
            log_probs: Tensor = model(**inputs, fused_lm_head=True).log_probs
            return -log_probs[:, -(labels.shape[1] - 1) :]  # prompt tuning puts tokens of its own before the row
        targets = labels[:, 1:]
        needed = (targets != IGNORED).any(dim=0).nonzero().flatten()
        given = {key: value for key, value in inputs.items() if key != "labels"}
        # Counted from the end: prompt tuning puts tokens of its own before the row.
        logits = self._logits_at(model, given, needed - labels.shape[1])
        losses = functional.cross_entropy(
            logits.float().flatten(0, 1), targets[:, needed].flatten(), ignore_index=IGNORED, reduction="none"
        )
        nll = logits.new_zeros(targets.shape, dtype=torch.float32)
        return nll.index_add(1, needed, losses.view(targets.shape[0], -1))

    @staticmethod
    def _logits_at(model: nn.Module, inputs: dict[str, Any], positions: Tensor) -> Tensor:
        """Return (B, P, V) the logits at `positions`, without computing the others where the model can do so.

        `positions`: (P,) negative, counted from the end.
        """
        unwrap = getattr(model, "get_base_model", None)
        base = unwrap() if callable(unwrap) else model
        if "logits_to_keep" in inspect.signature(type(base).forward).parameters:
            logits: Tensor = model(**inputs, use_cache=False, logits_to_keep=positions).logits
            return logits
        everything: Tensor = model(**inputs, use_cache=False).logits
        return everything[:, positions]

    # --- no harm ------------------------------------------------------------------------------------------------------

    def _refuse_infinite(self, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            where = self._rows_text(self._micro_batch, 1) if self.model.training else " It is that of held-out rows."
            raise self._harm("loss of", float(loss.detach()), "A lower learning rate, `train.max_grad_norm`", where)

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
        loader, progress = self.callback_handler.train_dataloader, float(self.state.epoch or 0)
        seen = round((progress - int(progress)) * len(loader)) + first
        loader.set_epoch(int(progress))
        return [int(row) for batch in islice(iter(loader.batch_sampler), seen, seen + count) for row in batch]

    def _count_tokens(self, real: Tensor) -> None:
        """Count the tokens that are no padding, as TRL's own loss would log them."""
        mode = "train" if self.model.training else "eval"
        if mode == "train":
            self._total_train_tokens += int(self.accelerator.gather_for_metrics(real).sum())
        self._metrics[mode]["num_tokens"] = [self._total_train_tokens]

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint, then seal it: only then is it one, and may an older one go."""
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            checkpoints.discard(folder)
        self.accelerator.wait_for_everyone()
        with explaining(f"{folder.name} cannot be written", folder.parent):
            try:
                super()._save_checkpoint(model, trial)
                checkpoints.write_progress(folder, self.args.process_index, self._progress())
                self.accelerator.wait_for_everyone()
                if self.args.should_save:
                    self._seal(folder)
            except Exception:
                checkpoints.discard(folder)  # makes room again
                raise

    def _seal(self, folder: Path) -> None:
        # A pickle of the trainer's options, secrets and all, that nothing reads.
        (folder / "training_args.bin").unlink(missing_ok=True)
        if not self.args.save_only_model:
            checkpoints.seal(folder)
            checkpoints.rotate(folder.parent, self.keep, self.state.best_model_checkpoint)

    def _progress(self) -> dict[str, Any]:
        """Return what the trainer counts and sums up between two logs, and does not save itself."""
        return {
            "seconds": self.clock.seconds,
            "tokens": self._total_train_tokens,
            "loss": float(self._tr_loss),
            "loss_total": self._total_loss_scalar,
            "logged_at": self._globalstep_last_logged,
            "metrics": {name: [float(value) for value in values] for name, values in self._metrics["train"].items()},
        }

    def go_on(self, progress: Mapping[str, Any]) -> None:
        """Take up what `_progress` said; called when the trainer has begun to train, for it sets all this to zero."""
        self._total_train_tokens = progress["tokens"]
        self._tr_loss = self._tr_loss + progress["loss"]
        self._total_loss_scalar = progress["loss_total"]
        self._globalstep_last_logged = progress["logged_at"]
        self._initial_global_step = 0  # the mean loss is that of all steps
        self._metrics["train"].update({name: list(values) for name, values in progress["metrics"].items()})

    def mean_loss(self) -> float:
        """Return the mean loss over all steps so far."""
        total: float = self._total_loss_scalar
        steps: int = self.state.global_step
        return total / max(steps, 1)


_SHOWN = 20
"""How many rows of a batch are named."""


class SeededByEpoch(Sampler[int]):
    """A sampler whose order depends on the seed and the epoch, and on nothing that happened before."""

    def __init__(self, sampler: LengthGroupedSampler, args: Any) -> None:
        """Give `sampler` a generator of its own."""
        self._sampler = sampler
        self._seed = args.data_seed if args.data_seed is not None else args.seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Draw the order of this epoch next."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Any:
        self._sampler.generator = torch.Generator().manual_seed(self._seed + self._epoch)
        return iter(self._sampler)
