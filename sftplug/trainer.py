"""The one subclass of TRL's trainer, and the collator that feeds it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import SFTTrainer

from sftplug.errors import TrainingError

if TYPE_CHECKING:
    from torch import Tensor, nn

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
    """`SFTTrainer` with a loss that knows weights other than 0 and 1.

    The loss of a batch is ``sum(w * nll) / sum(w)`` over all tokens of all micro-batches of a step, whatever the
    micro-batches; with weights of 0 and 1 that is TRL's own loss. On CPUs, where TRL's fused head scores every
    position, only the trained positions are scored: equal, and several times faster on small models.
    """

    _total_train_tokens: int

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        """Return the micro-batches of a step and what their loss is divided by: the sum of the weights."""
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
            return -log_probs
        targets = labels[:, 1:]
        needed = (targets != IGNORED).any(dim=0).nonzero().flatten()
        given = {key: value for key, value in inputs.items() if key != "labels"}
        logits = self._logits_at(model, given, needed)
        losses = functional.cross_entropy(
            logits.float().flatten(0, 1), targets[:, needed].flatten(), ignore_index=IGNORED, reduction="none"
        )
        nll = logits.new_zeros(targets.shape, dtype=torch.float32)
        return nll.index_add(1, needed, losses.view(targets.shape[0], -1))

    @staticmethod
    def _logits_at(model: nn.Module, inputs: dict[str, Any], positions: Tensor) -> Tensor:
        """Return (B, P, V) the logits at `positions`, without computing the others where the model can do so."""
        unwrap = getattr(model, "get_base_model", None)
        base = unwrap() if callable(unwrap) else model
        if "logits_to_keep" in inspect.signature(type(base).forward).parameters:
            logits: Tensor = model(**inputs, use_cache=False, logits_to_keep=positions).logits
            return logits
        everything: Tensor = model(**inputs, use_cache=False).logits
        return everything[:, positions]

    def _refuse_infinite(self, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            step = self.state.global_step + 1
            raise TrainingError(
                f"the loss of step {step} is {float(loss.detach())}. No checkpoint was written after step "
                f"{step - 1}. A lower learning rate, `train.max_grad_norm`, or bf16 in place of fp16 usually helps."
            )

    def _count_tokens(self, real: Tensor) -> None:
        """Count the tokens that are no padding, as TRL's own loss would log them."""
        mode = "train" if self.model.training else "eval"
        if mode == "train":
            self._total_train_tokens += int(self.accelerator.gather_for_metrics(real).sum())
        self._metrics[mode]["num_tokens"] = [self._total_train_tokens]


class Guard(TrainerCallback):  # type: ignore[misc]
    """Stops a run that does harm: a parameter that gets no gradient, a gradient that is not finite."""

    def __init__(self) -> None:
        self._checked = False

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Once, before the first update: every trainable parameter must have got a gradient."""
        if self._checked:
            return
        self._checked = True
        parameters = dict(kwargs["model"].named_parameters())
        idle = [name for name, parameter in parameters.items() if parameter.requires_grad and parameter.grad is None]
        if idle:
            raise TrainingError(
                f"{len(idle)} parameters are to be trained but get no gradient, such as {idle[0]}. "
                "The adapter's targets are not used by the model's forward pass."
            )

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Stop on a gradient that is not finite, before a checkpoint holds what it did."""
        norm = (logs or {}).get("grad_norm")
        if norm is not None and not torch.isfinite(torch.as_tensor(norm)):
            raise TrainingError(
                f"the gradient's norm at step {state.global_step} is {norm}. A lower learning rate usually helps."
            )
