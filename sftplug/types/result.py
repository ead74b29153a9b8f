"""What came of a run, and how large the model is that it trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class ModelPart:
    """Modules of one kind with which the same is done."""

    kind: str
    """``attention``, ``state space``, ``MLP``, ``experts``, ``router``, ``embeddings``, ``head``, ``norms``, ``other``;
    ``vision`` or ``audio``, which rows of text do not run."""
    done: str
    """``adapted``, ``adapted, rank 16``, ``trained`` or ``frozen``."""
    held_in: str
    """What its weights are held as: ``bfloat16``, ``nf4`` …"""
    modules: int
    """How many modules there are; of experts, how many tensors."""
    parameters: int
    """How many weights of the base model are in them."""


@dataclass(frozen=True, slots=True)
class ParameterCounts:
    """How much of a model is trained, what of it stays as it is, and how much memory its weights take."""

    trainable: int
    """Parameters that are trained."""
    total: int
    """Parameters in all; a 4-bit weight counts as one."""
    bytes: int
    """Bytes of all weights as they are held."""
    modules: dict[str, int]
    """Name of a module whose parameters are trained -> how many there are of it."""
    ranks: dict[str, int] = field(default_factory=dict)
    """Name of such a module -> the rank of its low-rank update, where that is not the rank of most."""
    base: int = 0
    """Parameters of the base model."""
    untouched: dict[str, int] = field(default_factory=dict)
    """Kind of weight of the base -> how many have no adapter beside them and are not trained, the most first."""
    float_experts: int = 0
    """Bytes of the experts of a quantized model that are held as floats all the same."""
    parts: tuple[ModelPart, ...] = ()
    """What is done with each kind of module of the base model."""

    @classmethod
    def from_dict(cls, known: Mapping[str, Any]) -> ParameterCounts:
        """Return them as they were written down."""
        return cls(**{**known, "parts": tuple(ModelPart(**part) for part in known.get("parts", ()))})

    def table(self) -> list[tuple[str, ...]]:
        """Return the rows of a table of `parts`: kind, how many, what is done, held in, share of the weights."""
        return [
            (part.kind, f"{part.modules:,}", part.done, part.held_in, f"{part.parameters / max(self.base, 1):.1%}")
            for part in self.parts
        ]

    def shares(self) -> str:
        """Return ``96.3% of the weights (experts.gate_up_proj 64.2%, experts.down_proj 32.1%)`` of what is untouched.

        Empty if nothing is, or if what is trained stands beside no weight, as a prompt does.
        """
        if not self.untouched:
            return ""
        listed = [
            f"{kind} {count / self.base:.1%}" for kind, count in self.untouched.items() if count >= self.base / 99
        ]
        kinds = f" ({', '.join(listed[:4])}{', …' if len(listed) > 4 else ''})" if listed else ""
        return f"{sum(self.untouched.values()) / self.base:.1%} of the weights{kinds}"


@dataclass(frozen=True, slots=True)
class MovedWeights:
    """What became of trained weights that are held in 16 bits."""

    share: float
    """Share of them that is another number than before; of large tensors, counted on a sample."""
    still: tuple[str, ...]
    """Names of the tensors of which none is."""
    tensors: int
    """How many there are."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """What came of a run."""

    output: Path
    """Folder with the model or adapter, the tokenizer, and the record of the run."""
    log: tuple[Mapping[str, Any], ...]
    """What the trainer logged, in order: ``step``, ``loss``, ``learning_rate``, ``eval_loss`` …"""
    loss: float
    """Mean training loss."""
    size: ParameterCounts
    """What of the model was trained, and how large it is."""
    seconds: float
    """Time in the training loop."""
    tokens: int
    """Tokens that went through the model in training, padding left out."""
    moved: MovedWeights | None = None
    """What became of trained weights that are held in 16 bits; None where there are none."""
