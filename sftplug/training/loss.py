"""The loss: of each token by its weight, the same over a step whatever its micro-batches; and what it is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from sftplug.errors import TrainingError
from sftplug.training.batches import BatchTrainer
from sftplug.training.chosen_loss import Scored, base_logits, logits_at, teacher_logits
from sftplug.training.loss_sums import LossAccumulator, Reader, by_code, with_sources
from sftplug.types.loss_groups import LossGroups
from sftplug.types.tokens import IGNORED

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sftplug.plugin.components import Loss
    from sftplug.types.tokens import LossSums


class LossTrainer(BatchTrainer):
    """A loss that knows weights other than 0 and 1, and losses of a token other than its negative log-likelihood.

    The loss of a batch is ``sum(w * loss) / sum(w)`` over all tokens of all micro-batches of a step, whatever the
    micro-batches; of the likelihood with weights of 0 and 1 that is TRL's own loss. On CPUs, where TRL's fused head
    scores every position, only the trained positions are scored: equal, and several times faster on small models.
    """

    _total_train_tokens: int
    chosen: Loss | None = None
    """What a token costs; None for its negative log-likelihood."""
    own_head = False
    """Whether the loss is taken of the model's own logits: TRL's head makes them of the last hidden states, past
    whatever a patch does to the model's forward pass or to its head."""
    teacher: nn.Module | None = None
    """The other model whose logits `chosen` asks for."""
    readers: Sequence[Reader] = ()
    """What splits the loss: each makes of the sums what is logged beside it, in training and in evaluation."""

    def __init__(self, *args: Any, groups: Mapping[str, LossGroups] | None = None, **kwargs: Any) -> None:
        """Make the trainer; `groups` are those of the rows that the loss is split by, for ``train`` and ``eval``."""
        super().__init__(*args, **kwargs)
        none = LossGroups.of(())
        self.tallies = {mode: LossAccumulator((groups or {}).get(mode, none)) for mode in ("train", "eval")}

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        """Return the micro-batches of a step and what their loss is divided by; see `BatchTrainer`."""
        batches, count = super().get_batch_samples(*args, **kwargs)
        self.tallies["train"].steps += bool(batches)
        return batches, count

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the loss of a micro-batch. Raises TrainingError when it is not finite."""
        ours = {name: inputs.pop(name, None) for name in ("weights", "provenance", "real_tokens")}
        seen, plain = self._total_train_tokens, ours["weights"] is None and ours["provenance"] is None
        plain = plain and self.chosen is None
        if plain and self.model.training and self._fused():
            result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            self._total_train_tokens = seen
        else:
            loss = self._weighted_loss(model, inputs, ours, num_items_in_batch)
            result = (loss, self._with_logits(model, inputs)) if return_outputs else loss
        self._refuse_infinite(result[0] if return_outputs else result)
        if ours["real_tokens"] is not None:
            self._count_tokens(ours["real_tokens"])
        if self.model.training:
            self._micro_batch += 1
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
        if self.chosen is None:
            losses, outputs = self._nll(model, inputs, labels)
        else:
            losses, outputs = self._chosen(self.chosen, model, inputs, weights, ours["provenance"])
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

    def _fused(self) -> bool:
        """Whether TRL's fused head is the fast way, and a way: it is where there is an accelerator."""
        return bool(self.args.device.type != "cpu") and not self.own_head

    def _nll(self, model: nn.Module, inputs: dict[str, Any], labels: Tensor) -> tuple[Tensor, Any]:
        """Return (B, L-1) the negative log-likelihood of each token but the first, and the model's outputs.

        It is 0 where the label is ignored.
        """
        if self._fused():
            outputs = model(**inputs, use_cache=False, fused_lm_head=True)
            return -outputs.log_probs[:, -(labels.shape[1] - 1) :], outputs  # prompt tuning puts tokens before the row
        targets = labels[:, 1:]
        needed = (targets != IGNORED).any(dim=0).nonzero().flatten()
        given = {key: value for key, value in inputs.items() if key != "labels"}
        # With L = 5 and token 3 alone trained, `needed` is [2], and the logits are those at 2 - 5 = -3.
        # Counted from the end: prompt tuning puts tokens of its own before the row.
        own = self.accelerator.unwrap_model(model)
        logits, outputs = logits_at(model, own, given, needed - labels.shape[1])
        losses = functional.cross_entropy(
            logits.float().flatten(0, 1), targets[:, needed].flatten(), ignore_index=IGNORED, reduction="none"
        )
        nll = logits.new_zeros(targets.shape, dtype=torch.float32)
        return nll.index_add(1, needed, losses.view(targets.shape[0], -1)), outputs

    def _chosen(
        self, loss: Loss, model: nn.Module, inputs: dict[str, Any], weights: Tensor, codes: Tensor | None
    ) -> tuple[Tensor, Any]:
        """Return (B, L-1) what the recipe's loss says of each token but the first, and the model's outputs.

        It is 0 where the label is ignored.
        """
        targets = inputs["labels"][:, 1:]
        trained = targets != IGNORED
        needed = trained.any(dim=0).nonzero().flatten()
        given = {key: value for key, value in inputs.items() if key != "labels"}
        positions, own = needed - targets.shape[1] - 1, self.accelerator.unwrap_model(model)
        base = base_logits(model, own, given, positions) if loss.reads_base else None
        teacher = None if self.teacher is None else teacher_logits(self.teacher, given, positions)
        logits, outputs = logits_at(model, own, given, positions)
        tally = self.tallies["train" if self.model.training else "eval"]
        known = None if codes is None else with_sources(codes[:, 1:][:, needed], tally.groups)
        losses = Scored(logits, targets[:, needed], weights[:, needed], base, known, teacher).losses(loss)
        return torch.zeros_like(weights, dtype=torch.float32).masked_scatter(trained, losses), outputs

    def _refuse_infinite(self, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            where = self._rows_text(self._micro_batch, 1) if self.model.training else " It is that of held-out rows."
            raise self._harm("loss of", float(loss.detach()), "A lower learning rate, `train.max_grad_norm`", where)

    def _count_tokens(self, real: Tensor) -> None:
        """Count the tokens that are not padding, as TRL's own loss would log them."""
        mode = "train" if self.model.training else "eval"
        if mode == "train":
            self._total_train_tokens += int(self.accelerator.gather(real.to(self.args.device)).sum())
        self._metrics[mode]["num_tokens"] = [self._total_train_tokens]

    # --- what is logged -----------------------------------------------------------------------------------------------

    def _tally(self, codes: Tensor | None, loss: Tensor, weights: Tensor, total: Tensor | None) -> None:
        """Add up what the loss of a micro-batch is made of: (B, L-1) w * nll and w of each token, over `total`.

        Held-out rows (no `total`) are always added up, for their loss is that of all their tokens.
        """
        mode = "eval" if total is None else "train"
        tally = self.tallies[mode]
        if codes is not None:
            codes = codes[:, 1:]
        if total is None:
            # Not those that were added for the processes to have as many each.
            tally.add(self.accelerator.gather_for_metrics(by_code(codes, loss, weights, len(tally.groups))))
        elif codes is not None:
            sums = by_code(codes, loss, weights, len(tally.groups))
            tally.add(sums / total.to(sums.dtype))

    def _note(self, outputs: Any) -> None:
        """Note what TRL's own loss notes: the auxiliary loss; entropy and accuracy where the fused head tells them."""
        noted = self._metrics["train" if self.model.training else "eval"]
        if self.aux_loss_enabled:
            noted["aux_loss"].append(self.accelerator.gather(outputs.aux_loss.detach()).mean().item())
        mask, entropy = getattr(outputs, "label_mask", None), getattr(outputs, "entropy", None)
        if mask is not None and entropy is not None:
            here = torch.stack([entropy.detach().sum().float(), outputs.is_top1.sum().float(), mask.sum().float()])
            entropy_sum, right, count = self.accelerator.gather(here[None]).sum(dim=0).tolist()
            noted["entropy"].append(entropy_sum / max(count, 1))
            noted["mean_token_accuracy"].append(right / max(count, 1))

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> Any:
        """Evaluate. The loss is ``sum(w * nll) / sum(w)`` over all held-out tokens, not a mean of means of batches."""
        tally = self.tallies["eval"]
        tally.clear()
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        if tally.sums is not None:
            measured = self._held_out(tally)
            output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in measured.items()})
        return output

    def _held_out(self, tally: LossAccumulator) -> dict[str, float]:
        assert tally.sums is not None
        loss, weight = tally.sums.sum(dim=0).tolist()
        whole, tally.steps = max(weight, 1e-8), 1
        tally.sums /= whole
        auxiliary = self._metrics["eval"].get("aux_loss", [])
        added = self._coefficient() * sum(auxiliary) / len(auxiliary) if auxiliary else 0.0
        return {"loss": loss / whole + added, **(self._split(tally.take()) if self.readers else {})}

    def _split(self, sums: LossSums | None) -> dict[str, float]:
        return {name: value for reader in self.readers for name, value in reader(sums).items()} if sums else {}

    def _coefficient(self) -> float:
        return float(self.model.config.get_text_config().router_aux_loss_coef)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, and beside the training loss what it is made of."""
        if "loss" in logs and self.readers:
            logs.update(self._split(self.tallies["train"].take(lambda sums: self.accelerator.reduce(sums, "mean"))))
        super().log(logs, start_time)
