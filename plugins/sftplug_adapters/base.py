"""Train weights of the base model itself: all of them, or those that match."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from sftplug import Adapter, Field, did_you_mean, structure_of

if TYPE_CHECKING:
    from torch import nn

    from sftplug import Recipe


RATE_OF_WEIGHTS: Mapping[str, Any] = {"learning_rate": 2e-5, "lr_scheduler_type": "linear", "warmup_steps": 0.03}
"""What pretrained weights themselves are fine-tuned with. Rate and warmup: Alpaca (Taori et al. 2023,
https://github.com/tatsu-lab/stanford_alpaca); linear decay after 3 % warmup: Tülu 3 (Lambert et al. 2024,
arXiv:2411.15124), at 5e-6 for 8 billion parameters. TRL's own rate is 2e-5."""


class Full(Adapter):
    """Train every parameter of the model; of one that takes images or sound too, every one of its language model."""

    type: Literal["full"] = "full"
    trains_base = True
    default_quantization = "fp32"  # in 16 bits, updates much smaller than a weight are rounded away

    def train_defaults(self, recipe: Recipe) -> Mapping[str, Any]:
        """Return 2e-5, decaying linearly after a warmup over 3 % of the updates (sources: `RATE_OF_WEIGHTS`)."""
        return dict(RATE_OF_WEIGHTS)

    def peft_config(self) -> None:
        """Return None: the model's own parameters are trained."""

    def prepare_model(self, model: nn.Module) -> None:
        """Leave towers and projectors for images and sound as they are: rows of text give them no gradient."""
        structure = structure_of(model)
        for name, parameter in model.named_parameters():
            if structure.is_idle(name):
                parameter.requires_grad_(False)


class Freeze(Adapter):
    """Train only the parameters that match, and freeze the rest."""

    type: Literal["freeze"] = "freeze"
    trains_base = True
    default_quantization = "fp32"  # in 16 bits, updates much smaller than a weight are rounded away
    train: list[str] = Field(min_length=1)
    """Patterns of parameter names, with ``*`` and ``?``: ``model.layers.1?.*``, ``*.norm.weight``."""

    def train_defaults(self, recipe: Recipe) -> Mapping[str, Any]:
        """Return what suits the whole model: each weight goes as far, however many are trained."""
        return dict(RATE_OF_WEIGHTS)

    def check_model(self, model: nn.Module) -> Iterable[str]:
        """Say so when a pattern matches no parameter."""
        names = [name for name, _ in model.named_parameters()]
        for pattern in self.train:
            if not fnmatch.filter(names, pattern):
                yield f"`train: {pattern}` matches no parameter.{_hint(pattern, names)} One is called {names[0]}."
        structure = structure_of(model)
        idle = [name for name in names if structure.is_idle(name)]
        if any(fnmatch.filter(idle, pattern) for pattern in self.train):
            yield (
                f"`train: {self.train}` matches what rows of text do not run: {', '.join(sorted(structure.idle))}. "
                f"Name the others: `train: {_patterns(names, frozenset(idle))}`, or narrower patterns."
            )

    def peft_config(self) -> None:
        """Return None: the model's own parameters are trained."""

    def prepare_model(self, model: nn.Module) -> None:
        """Freeze what does not match."""
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(any(fnmatch.fnmatch(name, pattern) for pattern in self.train))


def _patterns(names: Sequence[str], idle: frozenset[str]) -> list[str]:
    """Return the shortest patterns that match all of `names` but those of `idle`: ``model.language_model.*``."""
    beside = {name[:end] for name in idle for end in range(len(name) + 1) if name[end : end + 1] in (".", "")}
    found = []
    for name in names:
        words = name.split(".")
        starts = [".".join(words[:count]) for count in range(1, len(words) + 1)]
        if name not in idle:
            start = next(start for start in starts if start not in beside)
            found.append(start if start == name else f"{start}.*")
    return sorted(set(found))


def _hint(pattern: str, names: Sequence[str]) -> str:
    """Return the pattern that was probably meant: each of its words that no name has becomes the nearest that one has.

    ``*.layrs.1.*`` gives ``*.layers.1.*``.
    """
    words = {word for name in names for word in name.split(".")}
    meant = re.sub(r"[A-Za-z]\w*", lambda match: _nearest(match[0], words), pattern)
    return f" Did you mean '{meant}'?" if fnmatch.filter(names, meant) else did_you_mean(pattern, names)


def _nearest(word: str, words: set[str]) -> str:
    if any(word in known for known in words):
        return word
    return next(iter(difflib.get_close_matches(word, sorted(words), n=1)), word)
