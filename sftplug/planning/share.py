"""What one of several processes holds, by the strategy that shares the model among them.

DDP: a whole model in each, and the buckets in which gradients are summed, as large as all gradients (torch's
documentation of ``DistributedDataParallel``, ``gradient_as_bucket_view``). FSDP2: each parameter is cut along its first
dimension, and its gradient and optimizer state with it (torch's documentation of ``fully_shard``); accelerate makes a
group of each decoder layer, and trains in 32 bits under autocast. ZeRO: of parameters, gradients and optimizer state,
stage 2 shares the last two, stage 3 all (Rajbhandari et al. 2020, arXiv:1910.02054, section 5); DeepSpeed keeps another
copy of what is trained in 32 bits, shared like the optimizer state. Figures are those of the first process, which has
the largest share.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sftplug.libraries.optimizer_state import Trained
from sftplug.planning.optimizer import state_of
from sftplug.planning.result import Range
from sftplug.planning.weights import HeldParameter, ModelWeights

if TYPE_CHECKING:
    from sftplug.planning.settings import Settings

_BUCKET = 5 * 10**8
"""Numbers in DeepSpeed's buffer of gradients (``reduce_bucket_size``), which is made whole for the smallest model."""
_LIVE = 10**9 + 5 * 10**7
"""Parameters that DeepSpeed's stage 3 has gathered at most: ``stage3_max_live_parameters`` and a bucket fetched before.
"""
_NOTHING = Range(0, 0)


@dataclass(frozen=True, slots=True)
class ProcessShare:
    """What a process holds all the time, in bytes."""

    base: int
    adapter: int
    gradients: int
    optimizer: Range
    known: bool
    """Whether the size of the optimizer's state is known."""
    communication: Range = _NOTHING
    """Buffers of what processes send each other, and what is gathered for a moment."""


def share_of(weights: ModelWeights, settings: Settings, strategy: str, processes: int) -> ProcessShare:
    """Return what the first of `processes` holds; `strategy` is one of ``launch.strategy``."""
    rule = _STRATEGIES[strategy] if processes > 1 else _alone
    return rule(weights, settings, processes)


def _alone(weights: ModelWeights, settings: Settings, processes: int) -> ProcessShare:
    size, known = state_of(settings, weights.trained)
    return ProcessShare(weights.base, weights.adapter, weights.gradients, size, known)


def _ddp(weights: ModelWeights, settings: Settings, processes: int) -> ProcessShare:
    buckets = Range(weights.gradients, weights.gradients)
    return replace(_alone(weights, settings, processes), communication=buckets)


def _fsdp2(weights: ModelWeights, settings: Settings, processes: int) -> ProcessShare:
    held = [_in_fp32(tensor) if tensor.trained and settings.autocast is not None else tensor for tensor in weights.held]
    cut = replace(weights, held=tuple(_cut(tensor, processes) for tensor in held))
    size = (settings.autocast or settings.dtype).itemsize
    layers, rest = _gathered(weights.held, size)
    # One layer is whole while it computes; the next is being gathered then, and gradients wait to be sent.
    trained, _ = _gathered(weights.trained, size)
    most = 2 * max(layers, default=0) + 2 * max(trained, default=0) + rest
    return replace(_alone(cut, settings, processes), communication=Range(max(layers, default=0), most))


def _in_fp32(tensor: HeldParameter) -> HeldParameter:
    return replace(tensor, bytes=4 * tensor.count)


def _cut(tensor: HeldParameter, processes: int) -> HeldParameter:
    """Return the first share of `tensor`: as many whole rows as the others have, or more."""
    if not tensor.shape:
        return tensor
    # 10 rows for 4 processes are 3, 3, 3 and 1.
    rows = math.ceil(tensor.shape[0] / processes)
    return replace(tensor, shape=(rows, *tensor.shape[1:]), bytes=tensor.bytes * rows // max(tensor.shape[0], 1))


def _gathered(held: Iterable[HeldParameter], size: int) -> tuple[list[int], int]:
    """Return the bytes of each layer, and those of what is in no layer, when each number takes `size` of them."""
    layers: dict[int | None, int] = {}
    for tensor in held:
        layers[tensor.layer] = layers.get(tensor.layer, 0) + tensor.count * size
    rest = layers.pop(None, 0)
    return list(layers.values()), rest


def _zero2(weights: ModelWeights, settings: Settings, processes: int) -> ProcessShare:
    bucket = _BUCKET * _type_of(weights, settings)
    return replace(_zero(weights, settings, processes), communication=Range(bucket, bucket))


def _zero3(weights: ModelWeights, settings: Settings, processes: int) -> ProcessShare:
    size = _type_of(weights, settings)
    cut = replace(_zero(weights, settings, processes), base=0, adapter=0)
    whole = _cast(weights, settings)
    parts = {in_base: sum(-(-t.bytes // processes) for t in whole if t.in_base is in_base) for in_base in (True, False)}
    layers, _ = _gathered(weights.held, size)
    one = max(layers, default=0)  # of many experts, a layer alone is more than DeepSpeed would gather ahead
    gathered = Range(one, max(one, min(weights.total, _LIVE) * size))
    return replace(
        cut,
        base=parts[True] + weights.buffers,
        adapter=parts[False],
        communication=Range(_BUCKET * size + gathered.low, _BUCKET * size + gathered.high),
    )


def _zero(weights: ModelWeights, settings: Settings, processes: int) -> ProcessShare:
    """Share gradients and optimizer state; DeepSpeed casts all weights to the type that it computes in."""
    held, share = _cast(weights, settings), -(-weights.trainable // processes)
    # DeepSpeed lays all that is trained end to end, in 32 bits, and cuts it into equal shares.
    flat = Trained((share,), 4 * share, embedding=False)
    state, known = state_of(settings, [flat])
    return ProcessShare(
        base=sum(tensor.bytes for tensor in held if tensor.in_base) + weights.buffers,
        adapter=sum(tensor.bytes for tensor in held if not tensor.in_base),
        gradients=share * _type_of(weights, settings),
        optimizer=state + Range(flat.bytes, flat.bytes),
        known=known,
    )


def _cast(weights: ModelWeights, settings: Settings) -> list[HeldParameter]:
    if settings.autocast is None:
        return list(weights.held)
    size = settings.autocast.itemsize
    return [replace(tensor, bytes=min(tensor.bytes, size * tensor.count)) for tensor in weights.held]


def _type_of(weights: ModelWeights, settings: Settings) -> int:
    """Return the bytes of a number of a gradient: in the type of autocast, else in that of the weights."""
    if settings.autocast is not None:
        return settings.autocast.itemsize
    return max((tensor.bytes // max(tensor.count, 1) for tensor in weights.trained), default=4)


_STRATEGIES: dict[str, Callable[[ModelWeights, Settings, int], ProcessShare]] = {
    "ddp": _ddp,
    "fsdp2": _fsdp2,
    "zero2": _zero2,
    "zero3": _zero3,
}
