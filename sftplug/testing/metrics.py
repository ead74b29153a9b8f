"""The laws of metrics."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sftplug.errors import RowError
from sftplug.plugin.calls import metric_label, metric_scores
from sftplug.plugin.components import Metric
from sftplug.testing.component import check_component
from sftplug.testing.law import check, check_drawn, demand, make, need_hypothesis, shown
from sftplug.testing.proofs import proving
from sftplug.types.conversation import Reply

WORDS = ("", " ", "It is 42.", "it is", "The sky\nis blue", '{"a": [1, true]}', "```json\n{}\n```", "é 🦀", "[", "NaN")


@dataclass(frozen=True, slots=True)
class MetricSubject:
    """A metric, and replies to score."""

    metric: Metric
    replies: Sequence[Reply]

    def __call__(self, replies: Sequence[Reply] | None = None) -> list[float]:
        """Score copies of the replies, or of others."""
        return metric_scores(self.metric, copy.deepcopy(self.replies if replies is None else replies))


@proving
def check_metric(component: type[Metric], references: Sequence[str] = WORDS, /, **options: Any) -> None:
    """Hold a metric to its laws, on replies of every sort to rows that say one of `references`. Raises LawBroken."""
    hypothesis = need_hypothesis()
    check_component(component, **options)
    made = make(component, options)
    check(made, [is_called_something], made)
    draw = hypothesis.strategies
    text = draw.sampled_from([*WORDS, *references]) | draw.text(max_size=20)
    pairs = draw.lists(draw.tuples(text, draw.sampled_from(list(references)), text), max_size=4)
    check_drawn(made, LAWS, pairs.map(lambda drawn: MetricSubject(made, _replies(drawn))))


def _replies(drawn: Sequence[tuple[str, str, str]]) -> list[Reply]:
    return [Reply(said, wanted, prompt, f"rows.jsonl:{n}", "rows") for n, (said, wanted, prompt) in enumerate(drawn, 1)]


def is_called_something(metric: Metric) -> None:
    """Its results have a name."""
    metric_label(metric)


def scores_every_reply(asked: MetricSubject) -> None:
    """There is a finite number for each reply, or RowError says what is wrong with the row's own."""
    try:
        asked()
    except RowError as error:
        named = bool(str(error.field).strip()) and bool(str(error.reason).strip())
        demand(named, f"RowError({error.field!r}, {error.reason!r})", "name 'reference' and the reason.")


def scores_each_reply_alone(asked: MetricSubject) -> None:
    """A reply's score is the same whichever others are scored with it, and whenever that is."""
    try:
        together, alone = asked(), [score for reply in asked.replies for score in asked([reply])]
    except RowError:
        return
    demand(
        together == alone,
        f"{shown(list(asked.replies))} scored {shown(together)} together and {shown(alone)} one by one",
        "let a score depend on its own reply and the options alone.",
    )


LAWS = (scores_every_reply, scores_each_reply_alone)
