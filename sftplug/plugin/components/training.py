"""Kinds that take part in training: what is minimized, and what watches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import field_validator

from sftplug.plugin.components.base import Component

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import TrainerCallback

    from sftplug.recipe.model import Recipe
    from sftplug.types.conversation import Reply
    from sftplug.types.output_layer import OutputLayer
    from sftplug.types.tokens import LossSums
    from sftplug.types.trained_tokens import TrainedTokens


class Head(Component):
    """Computes the negative log-likelihood of tokens from the last hidden states, and is chosen by ``loss.head``.

    All heads compute the same, and differ in time and memory: a kernel need not hold the logits of a large vocabulary.
    Before the first step of a run its head is held against the model's own logits, and refused if it is not equal.
    """

    takes: ClassVar[Literal["states", "pieces", "logits", "trl"]] = "states"
    """``states``: `nll` is called with the last hidden states, and there are no logits. The others are done by the
    core, for any loss: ``pieces`` makes the logits of 1,024 tokens at a time and makes them again in the backward pass,
    ``logits`` holds those of all trained tokens; ``trl`` is TRL's own head, within the model's forward pass."""

    def check_model(self, model: nn.Module) -> Iterable[str]:
        """Yield a sentence for everything because of which it cannot be used here for `model`, on the meta device.

        Called by ``sftplug check`` and before the first step. A head that nobody named is passed over in silence.
        """
        return ()

    def nll(self, states: Tensor, layer: OutputLayer, labels: Tensor) -> Tensor:
        """Return (N,) float32 the negative log-likelihood of each of the (N,) `labels`, from its (N, H) `states`.

        Called if `takes` says ``states``. Each token's own gradient must reach `states`, and ``layer.weight`` where
        that is trained: tokens have weights, and losses that bend the likelihood.
        """
        raise NotImplementedError(f"{type(self).__name__} takes {self.takes}, and has no `nll`")


class Loss(Component):
    """Says what each trained token costs, by the model's logits before it.

    The core does the rest: the loss of an update is ``sum(w * loss) / sum(w)`` over all its tokens, whatever the
    batches and processes, with the weights ``w`` of `masking`; that of held-out rows is the same over theirs.
    """

    reads_base: ClassVar[bool] = False
    """Whether it asks for the logits of the base model without its adapter, `TrainedTokens.base_logits`: a second
    forward pass, without gradients and without dropout. Refused where the base's own weights are trained."""
    reads_provenance: ClassVar[bool] = False
    """Whether it asks of which source, role and part each token is, `TrainedTokens.provenance`."""
    reads_logits: ClassVar[bool] = True
    """Whether it asks for `TrainedTokens.logits`, or `log_probs`. One that asks for no more than `nll` says False, and
    goes together with heads that make no logits."""

    head: Head | None = None
    """How it is computed from the last hidden states: ``full``, ``chunked``, ``fused`` or what a plugin offers. They
    are equal; null, or ``auto``, takes the fastest of the built-in ones and of those whose plugins the recipe uses, and
    keeps it for the run. Another run may find another one the fastest: name one to have it in every run."""

    @field_validator("head", mode="before")
    @classmethod
    def _is_left_open(cls, value: Any) -> Any:
        return None if value in ("auto", {"type": "auto"}) else value  # as it is written, or spelled out

    @property
    def teacher_model(self) -> str | None:
        """The other model whose logits it asks for, `TrainedTokens.teacher_logits`; None for none.

        A folder, or a name on the Hub, with ``@`` and a commit, tag or branch behind it where one is meant. It must
        read the same tokens as the model that is trained, and is refused before training if it does not. It lies in
        memory beside that, whole in each process, in the dtype that is computed in.
        """
        return None

    @property
    def is_nll(self) -> bool:
        """Whether it is the negative log-likelihood: a head that computes that without logits may stand in for it."""
        return False

    @abstractmethod
    def token_losses(self, tokens: TrainedTokens) -> Tensor:
        """Return (N,) the loss of each of `tokens`, which depends on that token alone: they come in pieces of any size.

        Its gradient must reach `tokens.logits`. What is not finite stops the run, and names the rows of the batch.
        """


class Callback(Component):
    """Watches the training loop."""

    reads_provenance: ClassVar[bool] = False
    """Whether it asks of which source, role and part the tokens of the loss are: then `loss_metrics` is called."""

    def train_options(self, recipe: Recipe) -> Mapping[str, Any]:
        """Return options of the ``train`` section that go with it; what the recipe says itself comes first.

        Called with `check`, before anything is loaded. Two callbacks of a recipe that mean two values of one option
        are refused.
        """
        return {}

    def loss_metrics(self, sums: LossSums) -> Mapping[str, float]:
        """Return what is logged beside the loss of the last steps, and as ``eval_…`` beside that of held-out rows.

        Called on every process, with the sums over all of them, if `reads_provenance` says so.
        """
        return {}

    @abstractmethod
    def trainer_callback(self) -> TrainerCallback:
        """Return the transformers callback that the trainer calls."""


class Metric(Component):
    """Says what the trained model's own replies are worth."""

    @property
    def label(self) -> str:
        """What its results are called; the name by default. No two metrics of a recipe may share one."""
        return self.type

    @abstractmethod
    def scores(self, replies: Sequence[Reply]) -> Sequence[float]:
        """Return a finite number for each of `replies`, in their order; what is reported is the mean.

        A reply's score depends on that reply alone: they come in batches of any size. Raises `RowError` naming
        ``reference`` and the reason for a row by which nothing can be scored.
        """
