"""The loss: of each token by its weight, the same over a step whatever its micro-batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from sftplug.errors import SftplugError, TrainingError
from sftplug.training.loss_log import CountingTrainer
from sftplug.training.loss_sums import with_sources
from sftplug.training.own_loss import fault_of
from sftplug.training.scoring import Scorer, Tokens
from sftplug.types.tokens import IGNORED

if TYPE_CHECKING:
    from torch import Tensor, nn


class LossTrainer(CountingTrainer):
    """A loss that knows weights other than 0 and 1, and losses of a token other than its negative log-likelihood.

    The loss of a batch is ``sum(w * loss) / sum(w)`` over all tokens of all micro-batches of a step, whatever the
    micro-batches; of the likelihood with weights of 0 and 1 that is TRL's own loss, which then computes it where its
    head is in use.
    """

    scorer: Scorer = Scorer()
    """What a token costs, and what computes that."""

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Go forward and backward with a micro-batch. Raises PluginFault where a loss in the place of ours fails."""
        try:
            return super().training_step(*args, **kwargs)
        except (SftplugError, OSError):
            raise
        except Exception as error:
            if (fault := fault_of(self, error)) is None:
                raise
            raise fault from error

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the loss of a micro-batch. Raises TrainingError when it is not finite."""
        ours = {name: inputs.pop(name, None) for name in ("weights", "provenance", "real_tokens")}
        plain = ours["weights"] is None and ours["provenance"] is None and self.scorer.loss is None
        if plain and self.model.training and self.scorer.head.takes == "trl":
            seen = self._total_train_tokens
            result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            # It counts tokens that are not real ones, such as those of padding that is laid end to end.
            self._total_train_tokens, self._metrics["train"]["num_tokens"] = seen, [seen]
        else:
            loss = self._weighted_loss(model, inputs, ours, num_items_in_batch)
            result = (loss, self._with_logits(model, inputs)) if return_outputs else loss
        self._refuse_infinite(result[0] if return_outputs else result)
        return result

    def _weighted_loss(
        self, model: nn.Module, inputs: dict[str, Any], ours: Mapping[str, Tensor | None], items: Any
    ) -> Tensor:
        """Return ``sum(w * loss)`` over the micro-batch, divided by the sum of the weights of the whole step.

        A mixture of experts with an auxiliary loss adds its coefficient times that, the mean over the micro-batches.
        """
        if self.model.training:
            self._refuse_cut_rows()
        labels, given = inputs["labels"], ours["weights"]
        # The logits at position t are for token t + 1: nothing predicts the first token, so its weight is nobody's.
        weights = ((labels != IGNORED).float() if given is None else given)[:, 1:]
        if self.aux_loss_enabled:  # only then do the outputs hold it
            inputs = {**inputs, "output_router_logits": True}
        losses, outputs = self._losses(model, Tokens(inputs, weights, ours["provenance"]))
        total = torch.as_tensor(weights.sum() if items is None else items).clamp(min=1e-8)
        # Gradients are averaged over processes, and each divides by the weights of all: of 2, half would be left.
        scale = self.accelerator.num_processes if self.args.average_tokens_across_devices and items is not None else 1
        loss: Tensor = (losses * weights).sum() / total * scale
        self._tally(ours["provenance"], losses * weights, weights, total / scale if self.model.training else None)
        self._note(outputs)
        if self.aux_loss_enabled:
            # Without a count of the step's items, the trainer itself divides by the number of micro-batches.
            batches = 1 if items is None else self.current_gradient_accumulation_steps
            loss = loss + self._coefficient() * outputs.aux_loss / batches
        return loss

    def _losses(self, model: nn.Module, batch: Tokens) -> tuple[Tensor, Any]:
        """Return (B, L-1) the loss of each token but the first, and the model's outputs."""
        if batch.codes is not None:
            groups = self.tallies["train" if self.model.training else "eval"].groups
            batch = Tokens(batch.inputs, batch.weights, with_sources(batch.codes, groups))
        return self.scorer.losses(model, self.accelerator.unwrap_model(model), batch)

    def _refuse_cut_rows(self) -> None:
        """Raise TrainingError where each device has a piece of every row: weights are not cut with it."""
        parallel = self.accelerator.parallelism_config
        if parallel is not None and (parallel.cp_enabled or parallel.sp_enabled):
            raise TrainingError(
                "context and sequence parallelism cut rows into pieces, and loss weights other than 0 and 1, losses "
                "other than `cross_entropy`, and callbacks that split the loss, need them whole. Leave out one or the "
                "other."
            )

    def _with_logits(self, model: nn.Module, inputs: Mapping[str, Any]) -> Any:
        """Return the model's own outputs: nothing of ours asks for them, but a caller may."""
        with torch.no_grad():
            return model(**{name: value for name, value in inputs.items() if name != "labels"})

    def _refuse_infinite(self, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            where = self._rows_text(self._micro_batch, 1) if self.model.training else " It is that of held-out rows."
            raise self._harm("loss of", float(loss.detach()), "A lower learning rate, `train.max_grad_norm`", where)
