"""The trained tokens of a batch: what a loss sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class TrainedTokens:
    """N tokens that are trained, of any rows in any order, and what the model said of each before it came.

    Cross-entropy is a line::

        def token_losses(self, tokens):
            return tokens.nll()
    """

    logits: Tensor
    """(N, V) float32: the model's for each token, from the text before it; gradients flow through them. (N, 0) for a
    loss that says with `reads_logits` that it does without, where the recipe's head makes none."""
    labels: Tensor
    """(N,) int64: the ids of the tokens themselves."""
    weights: Tensor
    """(N,) float32: how much each counts, as the masking strategies say. The core multiplies by them."""
    base_logits: Tensor | None = None
    """(N, V) float32 without gradient: those of the base model, without its adapter; None unless the loss's
    `reads_base` says that it wants them."""
    provenance: Tensor | None = None
    """(N,) integers: the index of the source << 6 | that of the role in `ROLE_CODES` << 3 | that of the part in
    `PARTS`; None unless the loss's `reads_provenance` says that it wants them."""
    teacher_logits: Tensor | None = None
    """(N, T) float32 without gradient: those of the loss's `teacher_model`; None without one. T may differ from V,
    because tables of embeddings are padded to round sizes: the entries that both have are of the same tokens, and those
    that one lacks are not tokens."""
    likelihood: Tensor | None = None
    """(N,) float32: what `nll` returns, where a head has computed it without logits."""

    def log_probs(self) -> Tensor:
        """Return (N, V) the logarithms of the model's probabilities."""
        return self.logits.log_softmax(-1)

    def nll(self) -> Tensor:
        """Return (N,) the negative log-likelihood of each token: its cross-entropy."""
        from torch.nn import functional

        if self.likelihood is not None:
            return self.likelihood
        return functional.cross_entropy(self.logits, self.labels, reduction="none")

    def __len__(self) -> int:
        """Return N."""
        return len(self.labels)

    def __getitem__(self, some: slice) -> TrainedTokens:
        """Return the tokens of a slice."""
        given = (self.base_logits, self.provenance, self.teacher_logits, self.likelihood)
        more = (None if values is None else values[some] for values in given)
        return TrainedTokens(self.logits[some], self.labels[some], self.weights[some], *more)
