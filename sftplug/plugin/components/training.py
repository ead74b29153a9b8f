"""Kinds that take part in training: what is minimized, and what watches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from sftplug.plugin.components.base import Component

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import TrainerCallback

    from sftplug.recipe.model import Recipe
    from sftplug.types.conversation import Reply
    from sftplug.types.tokens import LossSums
    from sftplug.types.trained_tokens import TrainedTokens


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
