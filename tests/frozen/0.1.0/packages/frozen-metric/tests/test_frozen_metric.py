from sftplug import Reply
from sftplug.testing import check_metric

from frozen_metric import FrozenMetric


def test_it_keeps_the_laws_of_metrics() -> None:
    check_metric(FrozenMetric, words=3)


def test_a_reply_of_few_words_is_right() -> None:
    texts = ("", "It is 42.", "As far as I know, it is 42.")
    replies = [Reply(text, "42", "6 times 7?", f"rows.jsonl:{number}") for number, text in enumerate(texts, 1)]
    assert FrozenMetric(words=3).scores(replies) == [1.0, 1.0, 0.0]
