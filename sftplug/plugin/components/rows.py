"""Kinds that make labelled tokens of rows, in the order of the data."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from sftplug.plugin.components.base import Component

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    from sftplug.types.conversation import Conversation, Row
    from sftplug.types.processing import Dropped, Made, RowContext
    from sftplug.types.recognition import Recognized
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

    def notes(self) -> Iterable[str]:
        """Yield what a user should know of the rows beforehand, such as files that are left out; nothing by default.

        Each is the rest of a sentence that begins with the source's name. The ledger says it.
        """
        return ()

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


class RowProcessor(Component):
    """Turns each row of a source into none, one or several rows, before a format reads them.

    What depends on other rows too, or joins rows, is a `StreamProcessor`.
    """

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns that it is told to look at, such as a score: no format need read them. None by default."""
        return ()

    def fingerprint(self) -> str | None:
        """Return what else the same rows depend on, for those who keep prepared rows; None if that cannot be told.

        Options, the files that they name as `InputPath`, and the plugin's own code are known. Without a fingerprint,
        rows are prepared again in every run.
        """
        return ""

    @abstractmethod
    def process(self, row: Row) -> Mapping[str, Any] | Sequence[Mapping[str, Any]] | Dropped:
        """Return the columns of the row that goes on, or a list of those of several, or why none does.

        It depends on `row` and the options alone, and does not change `row`. Several rows are known as the row's origin
        with ``#1``, ``#2`` … behind it. Raises `RowError` naming the column and the reason when the row does not fit.
        """


class StreamProcessor(RowProcessor):
    """Turns the rows of a source into others, seeing all of them one after another."""

    holds_rows: ClassVar[bool] = False
    """Whether it may hold on to more than 10,000 rows before it says what becomes of them, as what joins or draws rows
    has to. What does not say so is stopped there: rows need not fit into memory."""

    @abstractmethod
    def stream(self, rows: Iterator[Row], context: RowContext) -> Iterable[Row | Made | Dropped]:
        """Yield what becomes of `rows`: each as it is, or what is `Made` of it, or that it is `Dropped`.

        One that is read and of which nothing is said by the end stops the run. The same rows lead to the same result,
        whenever it is called. A row that does not fit is ``Dropped(RowError(column, reason), row)``.
        """

    def process(self, row: Row) -> Mapping[str, Any] | Sequence[Mapping[str, Any]] | Dropped:
        """Not called: rows come to `stream`."""
        raise NotImplementedError


class DatasetFormat(Component):
    """Turns one row of a dataset into a conversation."""

    @property
    def undecided(self) -> str | None:
        """The option that makes turns of rows which are plain text otherwise, ``as: chat``; None where there is none.

        None too where the recipe has decided. `sftplug check` tells of it, and a chat template that a recipe names and
        that renders no row for want of it is refused.
        """
        return None

    @classmethod
    def recognizes(cls, rows: Sequence[Mapping[str, Any]]) -> Recognized | str | None:
        """Return whether `rows` are of this format, for a recipe that leaves ``format`` out; None, by default, if asked
        in vain: the format is taken only where a recipe names it.

        `rows` are the first of a source, at least one and about 50 at most, as its processors leave them; it may be
        that one of them fits no format. Either they are `Recognized`, with the options that read them, or a sentence
        says why not: what is missing, or what makes it unsure, as in ``no column holds a list of messages``. A recipe
        goes on where exactly one installed format recognizes its rows, so take what is surely yours: the columns and
        what is in them, not the columns alone.
        """
        return None

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
    def reads_turns(self) -> bool:
        """Whether it asks who wrote a token, or what part of a turn it is; true by default.

        Rows that come as tokens do not say that: they are refused where a strategy asks.
        """
        return True

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
    """Whether no more than 1 % of what would be trained may be lost by it where ``data.max_loss`` says nothing."""
    shortens: ClassVar[bool] = True
    """Whether it may keep a part of a row. Where it never does, a row whose messages alone are certainly too long is
    left out before it is rendered."""

    @abstractmethod
    def shorten(self, row: LongRow) -> Sequence[Conversation] | slice | Sequence[slice]:
        """Return what is trained in place of `row`.

        Either conversations, each with fewer messages; they are rendered again, and those that are still too long come
        back to this method. None drops the row. Or the stretch of the row's own tokens that is kept; or a list of
        stretches, each of which becomes a row: a token that stands in several is trained in the first of them.
        """
