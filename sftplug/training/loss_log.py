"""What the loss is made of, counted while a run goes: by source, role and part; and the loss of held-out rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from sftplug.training.batches import BatchTrainer
from sftplug.training.loss_sums import LossAccumulator, Reader, by_code
from sftplug.types.loss_groups import LossGroups

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sftplug.types.tokens import LossSums


class CountingTrainer(BatchTrainer):
    """Adds up the losses that it is told of, and logs what they are made of beside them."""

    _total_train_tokens: int
    aux_loss_enabled: bool
    readers: Sequence[Reader] = ()
    """What splits the loss: each makes of the sums what is logged beside it, in training and in evaluation."""

    def __init__(self, *args: Any, groups: Mapping[str, LossGroups] | None = None, **kwargs: Any) -> None:
        """Make the trainer; `groups` are those of the rows that the loss is split by, for ``train`` and ``eval``."""
        super().__init__(*args, **kwargs)
        none = LossGroups.of(())
        self.tallies = {mode: LossAccumulator((groups or {}).get(mode, none)) for mode in ("train", "eval")}

    def leave_out_router_loss(self) -> None:
        """Ask for no auxiliary loss: TRL goes by the configuration, which may speak of one that the model has not."""
        if self.aux_loss_enabled:
            self.aux_loss_enabled = self.model.config.get_text_config().output_router_logits = False

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        """Return the micro-batches of a step and what their loss is divided by; see `BatchTrainer`."""
        batches, count = super().get_batch_samples(*args, **kwargs)
        self.tallies["train"].steps += bool(batches)
        return batches, count

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Go forward and backward with a micro-batch. Its tokens are counted whoever computes the loss of it."""
        if (real := inputs.get("real_tokens")) is not None:
            self._total_train_tokens += int(self.accelerator.gather(real.to(self.args.device)).sum())
            self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        self._micro_batch += 1
        return loss

    # --- what is added up ---------------------------------------------------------------------------------------------

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
        if not self.model.training:
            noted["num_tokens"] = [self._total_train_tokens]
        if self.aux_loss_enabled:
            noted["aux_loss"].append(self.accelerator.gather(outputs.aux_loss.detach()).mean().item())
        mask, entropy = getattr(outputs, "label_mask", None), getattr(outputs, "entropy", None)
        if mask is not None and entropy is not None:
            here = torch.stack([entropy.detach().sum().float(), outputs.is_top1.sum().float(), mask.sum().float()])
            entropy_sum, right, count = self.accelerator.gather(here[None]).sum(dim=0).tolist()
            noted["entropy"].append(entropy_sum / max(count, 1))
            noted["mean_token_accuracy"].append(right / max(count, 1))

    # --- what is logged -----------------------------------------------------------------------------------------------

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> Any:
        """Evaluate. The loss is ``sum(w * loss) / sum(w)`` over all held-out tokens, not a mean of means of batches.

        It is that of the tokens alone, as ``sftplug eval`` says it; an auxiliary loss is logged beside it.
        """
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
        return {"loss": loss / whole, **(self._split(tally.take()) if self.readers else {})}

    def _split(self, sums: LossSums | None) -> dict[str, float]:
        return {name: value for reader in self.readers for name, value in reader(sums).items()} if sums else {}

    def _coefficient(self) -> float:
        given = self.args.router_aux_loss_coef  # None is the model's own; older TRL has a default
        return float(self.model.config.get_text_config().router_aux_loss_coef if given is None else given)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, and beside the training loss what it is made of."""
        if "loss" in logs and self.readers:
            logs.update(self._split(self.tallies["train"].take(lambda sums: self.accelerator.reduce(sums, "mean"))))
        super().log(logs, start_time)
