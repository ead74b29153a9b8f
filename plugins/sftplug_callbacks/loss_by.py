"""The loss, told apart by who wrote a token, what it is of, and where its row came from."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from sftplug import PARTS, ROLE_CODES, Callback, Field, LossSums

Kind = Literal["role", "part", "source"]


class LossBy(Callback):
    """Log the loss of each role, part of a turn and source beside the loss itself, in training and in evaluation.

    ``loss/assistant``, ``loss/reasoning``, ``loss/chats.jsonl`` and ``eval_loss/…`` are means over the tokens of a
    kind, weighted as they are trained. Times their shares, those of all roles, of all parts or of all sources add up to
    the loss.
    """

    type: Literal["loss_by"] = "loss_by"
    by: tuple[Kind, ...] = Field(("role", "part", "source"), min_length=1)
    """What tells the tokens apart: ``role`` (assistant, user …), ``part`` (content, reasoning, tool_call, end_of_turn
    …) or ``source`` (each of ``data.train``, and of ``data.eval``)."""
    shares: bool = False
    """Log each one's share of the loss's weight too, as ``share/reasoning``."""
    shorthand: ClassVar[str] = "by"
    reads_provenance: ClassVar[bool] = True

    def loss_metrics(self, sums: LossSums) -> dict[str, float]:
        """Return the mean loss of each kind of token that has any weight."""
        found = {}
        for kind in dict.fromkeys(self.by):
            for name, (mean, share) in sums.by(kind).items():
                # A file may be called `content`.
                known = f"source/{name}" if kind == "source" and name in (*ROLE_CODES, *PARTS) else name
                found[f"loss/{known}"] = mean
                if self.shares:
                    found[f"share/{known}"] = share
        return found

    def trainer_callback(self) -> Any:
        """Return the callback that shows them in the terminal."""
        from sftplug_callbacks.show import ShowSplit

        return ShowSplit()
