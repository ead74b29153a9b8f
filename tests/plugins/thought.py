"""Split the loss by what no built-in splits it by."""

from typing import Literal

import sftplug


class ThoughtBySource(sftplug.Callback):
    """Log the loss of reasoning, source by source."""

    type: Literal["thought_by_source"] = "thought_by_source"
    reads_provenance = True

    def loss_metrics(self, sums):
        """Return name -> mean loss."""
        reasoning = sftplug.PARTS.index("reasoning")
        loss, weight = (table[:, :, reasoning].sum(1) for table in (sums.loss, sums.weight))
        return {f"loss/thought/{name}": a / b for name, a, b in zip(sums.sources, loss, weight, strict=True) if b}

    def trainer_callback(self):
        """Return the callback for the trainer: it has nothing else to do."""
        from transformers import TrainerCallback

        return TrainerCallback()


@sftplug.hookimpl
def sftplug_callbacks():
    """Offer the callback."""
    return [ThoughtBySource]
