"""Adds up what the loss is made of: by source, role and part of each token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sftplug.types.loss_groups import LossGroups
from sftplug.types.tokens import PARTS, ROLE_CODES, LossSums

CODES = 64
"""Numbers of one group of rows: 8 roles of 8 parts; see `TokenBatch.provenance`."""
Reader = Callable[[LossSums], Mapping[str, float]]
"""Makes of the sums what is logged."""


class LossAccumulator:
    """The sums over the tokens so far, on one process."""

    def __init__(self, groups: LossGroups) -> None:
        """Begin with nothing; `groups` are those that provenance counts."""
        self.groups = groups
        self.steps = 0
        self.sums: Tensor | None = None
        """(64 G, 2) the sums of loss and weight of each code, where the loss is computed."""

    def add(self, rows: Tensor) -> None:
        """Add (B, 64 G, 2) sums, as `by_code` returns them."""
        whole = rows.sum(dim=0)
        self.sums = whole if self.sums is None else self.sums + whole

    def clear(self) -> None:
        """Begin anew."""
        self.sums, self.steps = None, 0

    def take(self, reduce: Callable[[Tensor], Tensor] = lambda sums: sums) -> LossSums | None:
        """Return the sums over all processes, which `reduce` adds up, and start over; None if there are none."""
        sums, steps = self.sums, self.steps
        self.clear()
        if sums is None:
            return None
        table = (reduce(sums) / max(steps, 1)).cpu().double().numpy().reshape(-1, 8, 8, 2)
        table = table[:, : len(ROLE_CODES), : len(PARTS)]
        return _summed(table, self.groups)

    def to_state(self) -> dict[str, Any]:
        """Return what `from_state` takes: exact, and as short as there are kinds of token."""
        sums = [] if self.sums is None else self.sums.tolist()
        return {"steps": self.steps, "sums": [[code, *pair] for code, pair in enumerate(sums) if any(pair)]}

    def from_state(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on from the sums of a checkpoint."""
        self.steps = state["steps"]
        if state["sums"]:
            self.sums = torch.zeros(CODES * len(self.groups), 2, dtype=exact(device), device=device)
            for code, loss, weight in state["sums"]:
                self.sums[code] = torch.tensor([loss, weight], dtype=self.sums.dtype)


def _summed(table: NDArray[np.float64], groups: LossGroups) -> LossSums:
    """Return the (G, R, P, 2) sums of groups as those of their sources, and of their tags."""
    sources = np.zeros((len(groups.sources), *table.shape[1:]))
    np.add.at(sources, [group.source for group in groups.groups], table)
    whole = table.sum(axis=(1, 2))
    tagged = {
        tag: {value: (float(whole[of, 0].sum()), float(whole[of, 1].sum())) for value, of in groups.by_tag(tag)}
        for tag in groups.tags
    }
    return LossSums(sources[..., 0], sources[..., 1], groups.sources, tagged)


def by_code(codes: Tensor | None, loss: Tensor, weight: Tensor, groups: int) -> Tensor:
    """Return (B, 64 G, 2) the sums of `loss` and `weight`, each (B, L), of the tokens of each code in (B, L) `codes`.

    Without codes (B, 1, 2): the sums of all tokens of a row.
    """
    kind, pairs = exact(loss.device), torch.stack([loss.detach(), weight], dim=-1)
    if codes is None:
        return pairs.to(kind).sum(dim=1, keepdim=True)
    size = CODES * groups
    flat = torch.zeros(len(codes) * size, 2, dtype=kind, device=loss.device)
    # With one group, code 10 of the second row is added up at 64 + 10.
    at = codes.long() + size * torch.arange(len(codes), device=codes.device)[:, None]
    return flat.index_add(0, at.flatten(), pairs.to(kind).flatten(0, 1)).view(len(codes), size, 2)


def with_sources(codes: Tensor, groups: LossGroups) -> Tensor:
    """Return codes in which the index of the source stands for the number of the group; without tags it is that."""
    if not groups.tags:
        return codes
    sources = torch.tensor([group.source for group in groups.groups], device=codes.device)
    known = codes.long()
    return sources[known // CODES] * CODES + known % CODES


def exact(device: torch.device) -> torch.dtype:
    """Return the longest float that `device` has."""
    return torch.float32 if device.type == "mps" else torch.float64


def short_names(labels: Sequence[str]) -> list[str]:
    """Return the shortest ends of `labels` that tell them apart: ``a.jsonl``, or ``x/a.jsonl`` and ``y/a.jsonl``.

    Labels that are alike are numbered.
    """
    found = []
    for index, label in enumerate(labels):
        others = {other for other in labels if other != label}
        pieces = label.split("/")
        ends = ("/".join(pieces[-count:]) for count in range(1, len(pieces) + 1))
        short = next((end for end in ends if not any(_ends_in(other, end) for other in others)), label)
        number = Counter(labels[: index + 1])[label]
        found.append(f"{short}#{number}" if labels.count(label) > 1 else short)
    return found


def _ends_in(label: str, end: str) -> bool:
    return label == end or label.endswith(f"/{end}")
