"""Kinds that make labelled tokens of rows, in the order of the data."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from sftplug.plugin.components.base import Component

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    from sftplug.types.conversation import Conversation, Row
    from sftplug.types.tokens import LongRow, TokenBatch


class DatasetSource(Component):
    """Says where rows come from. In a recipe its options stand beside ``format``: ``{path: …, format: …}``."""

    @property
    def remote(self) -> bool:
        """Whether reading the rows goes over the network; ``sftplug plan`` then leaves them unread."""
        return False

    @abstractmethod
    def rows(self) -> Iterator[Row]:
        """Yield every row, in the same order each time, with its origin.

        Raises DataError saying what cannot be read, and where.
        """

    @abstractmethod
    def label(self) -> str:
        """Return the source's name for the ledger and for messages."""

    def fingerprint(self) -> str | None:
        """Return what changes whenever a row does; None if that cannot be told without reading.

        Rows without a fingerprint are prepared again in every run.
        """
        return None

    def stamp(self) -> str | None:
        """Return what changes as soon as something that is read is written to, told without reading it; else None.

        Such as sizes and times of files. It is asked for before and after the rows are read: rows that changed
        meanwhile are refused. Of a source without a stamp, the fingerprint is asked for a second time.
        """
        return None


class DatasetFormat(Component):
    """Turns one row of a dataset into a conversation."""

    @abstractmethod
    def to_conversation(self, row: Mapping[str, Any]) -> Conversation:
        """Return the conversation that `row` holds, without changing `row`.

        Raises `RowError` naming the field and the reason when the row does not fit.
        """


class ChatTemplate(Component):
    """Says which Jinja chat template renders conversations."""

    @abstractmethod
    def source(self, tokenizer: PreTrainedTokenizerBase) -> str:
        """Return the template's Jinja source; it is saved with the model, so that inference renders the same."""


class Masking(Component):
    """Says how much each token counts in the loss."""

    selects: ClassVar[bool] = True
    """Whether it says by itself what is trained; False where it only weighs what another strategy selects."""
    reads_weights: ClassVar[bool] = False
    """Whether it reads the weights that rows give themselves, their messages and parts: `Conversation.weight`,
    `Message.weight`. Rows that have some are refused where no strategy reads them."""

    @property
    def trains(self) -> frozenset[str]:
        """Roles (of `ROLE_CODES`) that it trains beyond what the model itself must produce; none by default.

        Override it in a strategy that is meant to train what users, tools or the template say.
        """
        return frozenset()

    @abstractmethod
    def weights(self, tokens: TokenBatch) -> NDArray[np.bool_] | NDArray[np.floating[Any]]:
        """Return an array of shape (N,) over the flat batch: bool, or float >= 0."""


class LengthPolicy(Component):
    """Says what becomes of a row that is longer than ``data.max_length``."""

    refuses: ClassVar[bool] = False
    """Whether one such row stops the run."""
    limited: ClassVar[bool] = True
    """Whether ``data.max_loss`` limits how much of what would be trained may be lost by it."""
    shortens: ClassVar[bool] = True
    """Whether it may keep a part of a row. Where it never does, a row whose messages alone are certainly too long is
    left out before it is rendered."""

    @abstractmethod
    def shorten(self, row: LongRow) -> Sequence[Conversation] | slice:
        """Return what is trained in place of `row`.

        Either conversations, each with fewer messages; they are rendered again, and those that are still too long come
        back to this method. None drops the row. Or the stretch of the row's own tokens that is kept.
        """
