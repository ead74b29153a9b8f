"""What a plan says: plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from sftplug.types.result import ParameterCounts


@dataclass(frozen=True, slots=True)
class Range:
    """A number that lies between two; a known one lies between itself and itself."""

    low: int
    high: int

    def __add__(self, other: Range) -> Range:
        return Range(self.low + other.low, self.high + other.high)

    @property
    def exact(self) -> bool:
        """Whether the number is known."""
        return self.low == self.high


@dataclass(frozen=True, slots=True)
class Memory:
    """What lies in memory at the most crowded moment of an update, in bytes."""

    base: Range
    """Weights of the base model, quantization constants and buffers; exact where the backend counts its constants."""
    adapter: int
    """Weights that the adapter adds; exact."""
    gradients: int
    """Exact."""
    optimizer: Range
    """State of the optimizer after the first update; exact for every optimizer in the table."""
    activations: Range
    """What the forward pass keeps for the backward pass, beside what both need for a moment."""
    logits: Range
    """Logits, their loss, and the gradients of both, as far as they lie there together with the activations."""
    overhead: Range
    """What the device's own libraries take, assumed; on a CPU Python and its libraries, and what glibc keeps of freed
    memory, measured."""
    communication: Range
    """Buffers of what several processes send each other; nothing where there is but one."""
    teacher: int = 0
    """Weights of the teacher that the loss has; exact, and whole in each process."""

    @property
    def total(self) -> Range:
        """Return the sum."""
        known = self.adapter + self.gradients + self.teacher
        step = self.activations + self.logits + self.communication
        return self.base + Range(known, known) + self.optimizer + step + self.overhead


@dataclass(frozen=True, slots=True)
class Work:
    """How much is computed in the run."""

    rows: int | None
    """Training rows as the trainer gets them; None where they were not read."""
    rows_per_update: int
    updates: int | None
    """None where rows are unknown and the recipe sets no ``train.max_steps``."""
    tokens: Range | None
    """Tokens that go through the model, padding left out."""
    flops_per_token: float
    """Floating-point operations of matrix products: forward, backward, what checkpointing computes again."""
    flops: float | None
    """At most: for all tokens, at the length of the longest row."""
    seconds: tuple[float, float] | None
    """Least and most; None where tokens or the device's speed are unknown."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run will cost."""

    device: str
    settings: dict[str, Any]
    """What the figures are for: batch, accumulation, length, checkpointing, optimizer, dtypes, attention."""
    trainable: int
    total: int
    memory: Memory
    work: Work
    notes: tuple[str, ...]
    """What the reader must know of how the figures came about."""
    size: ParameterCounts = field(default_factory=lambda: ParameterCounts(0, 0, 0, {}))
    """What is trained, and what is done with each kind of module (``parts``)."""

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON holds it; ranges as ``[low, high]``, bytes."""
        return {**_plain(asdict(self)), "memory": {**_plain(asdict(self.memory)), "total": _plain(self.memory.total)}}


def _plain(value: Any) -> Any:
    if isinstance(value, Range):
        return [value.low, value.high]
    if isinstance(value, dict):
        if value.keys() == {"low", "high"}:
            return [value["low"], value["high"]]
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
