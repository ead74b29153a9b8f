from collections.abc import Sequence
from typing import Literal

from sftplug import Field, Metric, Reply, hookimpl


class FrozenMetric(Metric):
    """1 for a reply of few words, else 0: the row's own reply is not looked at."""

    type: Literal["frozen_metric"] = "frozen_metric"
    words: int = Field(20, ge=0)
    """How many words a reply may have."""

    def scores(self, replies: Sequence[Reply]) -> list[float]:
        return [float(len(reply.text.split()) <= self.words) for reply in replies]


@hookimpl
def sftplug_metrics() -> list[type[Metric]]:
    return [FrozenMetric]
