"""A model as a program reads it that will serve it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


class ServedModel(ABC):
    """An exported model in the hands of an engine, to be compared with the one that was trained."""

    engine: str
    """The program and its version: ``llama.cpp 0.3.36``."""

    @abstractmethod
    def text_ids(self, text: str) -> list[int]:
        """Return the ids that the engine makes of a rendered prompt, with what its server puts before it."""

    @abstractmethod
    def chat_ids(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Return the ids that its server makes of a conversation, rendered by the template that it was given.

        Each message has ``role`` and ``content``. The ids end where the reply of the model begins.
        """

    @abstractmethod
    def logits(self, ids: Sequence[int]) -> Tensor:
        """Return the logits (tokens, vocabulary) at each of the `ids`, as the engine computes them."""

    @abstractmethod
    def reply(self, ids: Sequence[int], most: int) -> list[int]:
        """Return what follows `ids`, the most likely token each time: `most` tokens, or fewer where a stop was reached.

        Without the stop itself.
        """

    def close(self) -> None:  # noqa: B027 - there may be nothing to let go
        """Let go of it; nothing is asked of it afterwards."""
