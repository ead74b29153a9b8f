"""The trainer: TRL's, with a loss and checkpoints of our own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional
from transformers.trainer_pt_utils import LengthGroupedSampler

from sftplug.errors import TrainingError
from sftplug.run import checkpoints
from sftplug.training.callback_state import states_of, with_states
from sftplug.training.callbacks import Stopwatch
from sftplug.training.checkpointing import CheckpointingTrainer
from sftplug.training.collator import IGNORED, SeededByEpoch, blank_rows
from sftplug.training.loss_sums import LossAccumulator, Reader, by_code

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sftplug.data.origins import Origins
    from sftplug.types.tokens import LossSums


class SftplugTrainer(CheckpointingTrainer):
    """`SFTTrainer` with a loss that knows weights other than 0 and 1, and with checkpoints that are whole.

    The loss of a batch is ``sum(w * nll) / sum(w)`` over all tokens of all micro-batches of a step, whatever the
    micro-batches; with weights of 0 and 1 that is TRL's own loss. On CPUs, where TRL's fused head scores every
    position, only the trained positions are scored: equal, and several times faster on small models.
    """

    _total_train_tokens: int
    _tr_loss: Tensor
    _total_loss_scalar: float
    clock: Stopwatch = Stopwatch()
    """Runs while the trainer trains; a checkpoint holds what it says."""
    in_force = ""
    """How the work is shared by processes, as found in the model when training begins."""
    strategy = ""
    """What shares the work, in one word; a checkpoint holds it."""
    saves = ""
    """When checkpoints are saved and which of them are kept, in a sentence, when training begins."""
    when_stopped: Sequence[Callable[[], object]] = ()
    """Called, in the midst of anything, when a signal asks the run to end: who shows how far it is stops that."""
    goes_on_from: Path | None = None
    """The checkpoint that the run goes on from."""
    origins: Origins | None = None
    """Where the training rows came from, for the message of a run that is stopped."""
    readers: Sequence[Reader] = ()
    """What splits the loss: each makes of the sums what is logged beside it, in training and in evaluation."""
    _micro_batch = 0
    """How many micro-batches of the step under way are done."""

    def __init__(self, *args: Any, sources: Mapping[str, Sequence[str]] | None = None, **kwargs: Any) -> None:
        """Make the trainer; `sources` are the short names of those of the rows, for ``train`` and ``eval``."""
        super().__init__(*args, **kwargs)
        self.tallies = {mode: LossAccumulator((sources or {}).get(mode, ())) for mode in ("train", "eval")}

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        """Return the trainer's sampler; the one that groups by length draws anew each epoch, from seed and epoch only.

        By itself it draws from the global random state, which is another one when a run goes on in its second epoch.
        """
        sampler = super()._get_train_sampler(*args, **kwargs)
        if not isinstance(sampler, LengthGroupedSampler):
            return sampler
        # Batches go to the processes in turn: group for all of them, so that each step has the rows of one process's.
        sampler.batch_size *= self.args.world_size
        return SeededByEpoch(sampler, self.args)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        """Return the micro-batches of a step and what their loss is divided by: the sum of the weights.

        None after the last step: a run that goes on from its last checkpoint has nothing left to do.
        """
        if 0 < self.state.max_steps <= self.state.global_step or self.control.should_training_stop:
            return [], None
        self._micro_batch = 0
        batches, count = super().get_batch_samples(*args, **kwargs)
        self.tallies["train"].steps += 1
        if batches and count is not None and self.accelerator.num_processes > 1:
            repeated = torch.tensor([self._without_repeated_rows(batches[-1], len(batches))], device=self.args.device)
            count = count - self.accelerator.gather(repeated).sum()
        if batches and "weights" in batches[0]:
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
        own = min(max(rest - self.args.process_index * size, 0), size)
        before = int((batch["labels"][:, 1:] != IGNORED).sum())
        blank_rows(batch, own, size)
        return before - int((batch["labels"][:, 1:] != IGNORED).sum())

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
        """Return ``sum(w * nll)`` over the micro-batch, divided by the sum of the weights of the whole step.

        A mixture of experts with an auxiliary loss adds its coefficient times that, the mean over the micro-batches.
        """
        if self.model.training:
            self._refuse_cut_rows()
        labels, given = inputs["labels"], ours["weights"]
        weights = ((labels != IGNORED).float() if given is None else given)[:, 1:]
        nll, outputs = self._token_losses(model, inputs, labels)
        total = torch.as_tensor(weights.sum() if items is None else items).clamp(min=1e-8)
        scale = self.accelerator.num_processes if self.args.average_tokens_across_devices and items is not None else 1
        loss: Tensor = (nll * weights).sum() / total * scale
        self._tally(ours["provenance"], nll * weights, weights, total / scale if self.model.training else None)
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
                "context and sequence parallelism cut rows into pieces, and loss weights other than 0 and 1, and "
                "callbacks that split the loss, need them whole. Leave out one or the other."
            )

    def _with_logits(self, model: nn.Module, inputs: Mapping[str, Any]) -> Any:
        """Return the model's own outputs: nothing of ours asks for them, but a caller may."""
        with torch.no_grad():
            return model(**{name: value for name, value in inputs.items() if name != "labels"})

    def _fused(self) -> bool:
        """Whether TRL's fused head is the fast way: it is where there is an accelerator."""
        return bool(self.args.device.type != "cpu")

    def _token_losses(self, model: nn.Module, inputs: dict[str, Any], labels: Tensor) -> tuple[Tensor, Any]:
        """Return (B, L-1) the negative log-likelihood of each token but the first, and the model's outputs.

        It is 0 where the label is ignored.
        """
        if self.aux_loss_enabled:  # only then do the outputs hold it
            inputs = {**inputs, "output_router_logits": True}
        if self._fused():
            outputs = model(**inputs, use_cache=False, fused_lm_head=True)
            return -outputs.log_probs[:, -(labels.shape[1] - 1) :], outputs  # prompt tuning puts tokens before the row
        targets = labels[:, 1:]
        needed = (targets != IGNORED).any(dim=0).nonzero().flatten()
        given = {key: value for key, value in inputs.items() if key != "labels"}
        # Counted from the end: prompt tuning puts tokens of its own before the row.
        logits, outputs = self._logits_at(model, given, needed - labels.shape[1])
        losses = functional.cross_entropy(
            logits.float().flatten(0, 1), targets[:, needed].flatten(), ignore_index=IGNORED, reduction="none"
        )
        nll = logits.new_zeros(targets.shape, dtype=torch.float32)
        return nll.index_add(1, needed, losses.view(targets.shape[0], -1)), outputs

    def _logits_at(self, model: nn.Module, inputs: dict[str, Any], positions: Tensor) -> tuple[Tensor, Any]:
        """Return (B, P, V) the logits at `positions`, the others not computed where the model can do so; its outputs.

        `positions`: (P,) negative, counted from the end.
        """
        own = self.accelerator.unwrap_model(model)
        unwrap = getattr(own, "get_base_model", None)
        base = unwrap() if callable(unwrap) else own
        if "logits_to_keep" in inspect.signature(type(base).forward).parameters:
            outputs = model(**inputs, use_cache=False, logits_to_keep=positions)
            return outputs.logits, outputs
        outputs = model(**inputs, use_cache=False)
        return outputs.logits[:, positions], outputs

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
            tally.add(self.accelerator.gather_for_metrics(by_code(codes, loss, weights, len(tally.sources))))
        elif codes is not None:
            sums = by_code(codes, loss, weights, len(tally.sources))
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
        epoch, seen = self._epoch_so_far()
        loader = self.callback_handler.train_dataloader
        loader.set_epoch(epoch)
        batches = islice(iter(loader.batch_sampler), seen + first, seen + first + count)
        return [int(row) for batch in batches for row in batch]

    def _epoch_so_far(self) -> tuple[int, int]:
        """Return the epoch, from 0, and how many of its micro-batches belong to steps that are done."""
        progress = float(self.state.epoch or 0)
        return int(progress), round((progress - int(progress)) * self._batches_in_epoch())

    def _batches_in_epoch(self) -> int:
        return len(self.callback_handler.train_dataloader)

    def _count_tokens(self, real: Tensor) -> None:
        """Count the tokens that are no padding, as TRL's own loss would log them."""
        mode = "train" if self.model.training else "eval"
        if mode == "train":
            self._total_train_tokens += int(self.accelerator.gather(real.to(self.args.device)).sum())
        self._metrics[mode]["num_tokens"] = [self._total_train_tokens]

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def _progress(self) -> dict[str, Any]:
        """Return what the trainer counts and sums up between two logs, and does not save itself."""
        return {
            checkpoints.PASSING: self.keep.limit is not None,
            "processes": self.accelerator.num_processes,
            "strategy": self.strategy,
            "seconds": self.clock.seconds,
            "tokens": self._total_train_tokens,
            "loss": float(self._tr_loss),
            "loss_total": self._total_loss_scalar,
            "logged_at": self._globalstep_last_logged,
            "metrics": {name: [float(value) for value in values] for name, values in self._metrics["train"].items()},
            "tally": self.tallies["train"].to_state(),
            "callbacks": states_of(self.callback_handler.callbacks),
            "stopped": self.control.should_training_stop,
        }

    def _load_callback_state(self) -> None:
        """Give the callbacks back the state that they had at the checkpoint; called before they hear of anything."""
        if self.goes_on_from is not None:
            states = checkpoints.read_progress(self.goes_on_from, self.args.process_index)["callbacks"]
            self.callback_handler.callbacks = with_states(self.callback_handler.callbacks, states)

    def go_on(self, progress: Mapping[str, Any]) -> None:
        """Take up what `_progress` said; called when the trainer has begun to train, for it sets all this to zero."""
        if self.held is not None:
            self.held.go_on()
        self._total_train_tokens = progress["tokens"]
        self._tr_loss = self._tr_loss + progress["loss"]
        self._total_loss_scalar = progress["loss_total"]
        self._globalstep_last_logged = progress["logged_at"]
        self._initial_global_step = 0  # the mean loss is that of all steps
        self.tallies["train"].from_state(progress["tally"], self.args.device)
        self._metrics["train"].update({name: list(values) for name, values in progress["metrics"].items()})

    @property
    def seconds(self) -> float:
        """Time in the training loop so far, over all attempts."""
        return self.clock.seconds

    @property
    def tokens(self) -> int:
        """Tokens that went through the model so far, padding left out."""
        return int(self._total_train_tokens)

    def mean_loss(self) -> float:
        """Return the mean loss over all steps so far; every process must ask, for each knows a part of it."""
        total = torch.tensor([self._total_loss_scalar], device=self.args.device)
        mean = float(self.accelerator.gather(total).mean())
        steps: int = self.state.global_step
        return mean / max(steps, 1)


_SHOWN = 20
"""How many rows of a batch are named."""
