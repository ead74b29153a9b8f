"""Training that moves: after the first updates every trained tensor has had a gradient, and is other numbers for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sftplug.errors import TrainingError

if TYPE_CHECKING:
    from torch import Tensor

UPDATES = 5
"""The weights are looked at after so many updates at the full rate, or as many at lower ones as go as far."""
NOTHING = 0.01
"""A smaller share of weights that moved is chance: those that happen to be nearly 0."""
_EACH = 64
"""So many weights of a tensor are looked at: those of the largest gradients in its first update, which move most."""


class MovementCheck(TrainerCallback):  # type: ignore[misc]
    """Tells which trained tensors the first updates have left as they were; stops the run where that is all of them."""

    def __init__(self, tell: Callable[[str], None], usual: float | None) -> None:
        """`tell` takes a sentence for the user; `usual` is the rate that suits what is trained, where one is known."""
        self._tell, self._usual = tell, usual
        self._watched: dict[str, tuple[Tensor, Tensor]] = {}
        self._done, self._updates = 0.0, 0
        self._over = False

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note, of each tensor with a gradient, some weights as they are before its first update at a rate above 0."""
        rate = max((float(group["lr"]) for group in kwargs["optimizer"].param_groups), default=0.0)
        # Before a warmup's first step, and where DeepSpeed or FSDP hold the gradients, there is nothing to look at.
        if self._over or not rate or not args.learning_rate or args.deepspeed_plugin is not None:
            return
        self._done, self._updates = self._done + min(rate / args.learning_rate, 1.0), self._updates + 1
        new = {name: value for name, value in _trained(kwargs["model"]) if name not in self._watched}
        for name, value in new.items():
            if value.grad is not None and bool(value.grad.any()):
                places = value.grad.abs().flatten().topk(min(_EACH, value.numel())).indices
                self._watched[name] = places, value.detach().flatten()[places].clone()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Look at them once, after the first updates."""
        if self._done >= UPDATES - 1e-6 and not self._over:
            self._look(kwargs["model"], state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Of a run that was shorter, look at its end."""
        if self._updates and not self._over:
            self._look(kwargs["model"], state)

    def _look(self, model: Any, state: TrainerState) -> None:
        self._over = True
        trained = dict(_trained(model))
        if not self._watched or not trained:
            return  # an optimizer that updates in the backward pass leaves no gradient to be seen
        moved = {name: self._moved(trained[name], name) for name in self._watched if name in trained}
        looked_at = sum(len(self._watched[name][0]) for name in moved)
        share = sum(moved.values()) / max(looked_at, 1)
        still = [name for name, count in moved.items() if not count]
        about = f"after the first {self._updates} updates, {share:.1%} of the weights looked at are other numbers"
        if still and share < NOTHING:
            raise TrainingError(f"{about}: the run learns nothing. {self._remedy(trained[still[0]])}")
        if state.is_world_process_zero:
            for sentence in self._sentences(trained, still, about):
                self._tell(sentence)
        self._watched.clear()

    def _moved(self, value: Tensor, name: str) -> int:
        places, before = self._watched[name]
        return int((value.detach().flatten()[places] != before).sum())

    def _sentences(self, trained: Mapping[str, Tensor], still: Sequence[str], about: str) -> Iterator[str]:
        if still:
            yield (
                f"{about}, and none in {len(still)} of {len(trained)} trained tensors, such as {still[0]}, though they "
                f"have gradients. {self._remedy(trained[still[0]])}"
            )
        if idle := [name for name in trained if name not in self._watched]:
            yield (
                f"after the first {self._updates} updates, {len(idle)} of {len(trained)} trained tensors have had no "
                f"gradient but 0, such as {idle[0]}: no row so far has used them."
            )

    def _remedy(self, value: Tensor) -> str:
        """Return what helps: numbers with more digits, or a higher rate."""
        if value.element_size() == 2:
            dtype = str(value.dtype).removeprefix("torch.")
            return f"In {dtype}, updates this small are rounded away: `quantization: fp32` keeps them."
        usual = f", such as {self._usual:g}, which is usual here" if self._usual else ""
        return f"Updates this small are rounded away, even in 32 bits: raise `train.learning_rate`{usual}."


def _trained(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield the parameters that are trained, and are whole in this process."""
    for name, value in model.named_parameters():
        if value.requires_grad and value.is_floating_point() and value.numel() and not hasattr(value, "placements"):
            yield name, value
