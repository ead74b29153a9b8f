"""The loss, told apart by who wrote a token, what it is of, and where its row came from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from sftplug import PARTS, ROLE_CODES, Callback, Field, LossSums, Recipe, did_you_mean

KINDS = ("role", "part", "source")


class LossBy(Callback):
    """Log the loss of each role, part of a turn, source and tag beside the loss itself, in training and in evaluation.

    ``loss/assistant``, ``loss/reasoning``, ``loss/chats.jsonl``, ``loss/customer/north`` and ``eval_loss/…`` are means
    over the tokens of a kind, weighted as they are trained. Times their shares, those of all roles, parts,
    sources or values of a tag add up to the loss.
    """

    type: Literal["loss_by"] = "loss_by"
    by: tuple[str, ...] = Field(("role", "part", "source"), min_length=1)
    """What tells the tokens apart: ``role`` (assistant, user …), ``part`` (content, reasoning, tool_call, end_of_turn
    …) ``source`` (each of ``data.train``, and of ``data.eval``), or a column that the ``tags`` of a source name."""
    shares: bool = False
    """Log each one's share of the loss's weight too, as ``share/reasoning``."""
    shorthand: ClassVar[str] = "by"
    reads_provenance: ClassVar[bool] = True

    def check(self, recipe: Recipe) -> Iterator[str]:
        """What the tokens are told apart by must be there."""
        sources = (*recipe.data.train, *recipe.data.eval)
        known = [*KINDS, *dict.fromkeys(tag for source in sources for tag in source.tags)]
        for name in self.by:
            if name not in known:
                hint = did_you_mean(name, known)
                yield f"`by: {name}` is no tag.{hint} Known: {', '.join(known)}; the `tags` of a source add some."

    def loss_metrics(self, sums: LossSums) -> dict[str, float]:
        """Return the mean loss of each kind of token that has any weight."""
        found = {}
        for kind in [kind for kind in dict.fromkeys(self.by) if kind in KINDS or kind in sums.tagged]:
            for name, (mean, share) in sums.by(kind).items():
                # A file may be called `content`.
                apart = kind not in KINDS or (kind == "source" and name in (*ROLE_CODES, *PARTS))
                known = f"{kind}/{name}" if apart else name
                found[f"loss/{known}"] = mean
                if self.shares:
                    found[f"share/{known}"] = share
        return found

    def trainer_callback(self) -> Any:
        """Return the callback that shows them in the terminal."""
        from sftplug_callbacks.show import ShowSplit

        return ShowSplit()
