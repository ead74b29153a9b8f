"""Metrics that compare what is said."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar, Literal

from sftplug import Metric, Reply

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def squad(text: str) -> str:
    """Return `text` as SQuAD compares answers: lower case, no ASCII punctuation, no articles, single spaces."""
    # In the order of SQuAD's script: "a.m." becomes "am". With articles first, "m" would be left of it.
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


class ExactMatch(Metric):
    """1 for a reply that is the row's, else 0. Two empty texts match."""

    type: Literal["exact_match"] = "exact_match"
    normalize: Literal["none", "strip", "squad"] = "strip"
    """What is done to both before: nothing; white space at both ends is left out; or what SQuAD's script does
    (Rajpurkar et al. 2016, arXiv:1606.05250): lower case, no ASCII punctuation, no articles, single spaces."""
    shorthand: ClassVar[str] = "normalize"

    def scores(self, replies: Sequence[Reply]) -> list[float]:
        """Compare text with text."""
        return [float(self._normal(reply.text) == self._normal(reply.reference)) for reply in replies]

    def _normal(self, text: str) -> str:
        if self.normalize == "squad":
            return squad(text)
        return text.strip() if self.normalize == "strip" else text


class Contains(Metric):
    """1 for a reply in which a text stands, else 0; by default the row's own, without white space at both ends.

    An empty text stands only in an empty reply.
    """

    type: Literal["contains"] = "contains"
    text: str | None = None
    """The text; null is the reply that the row holds."""
    ignore_case: bool = False
    """Take upper and lower case as one."""
    shorthand: ClassVar[str] = "text"

    def scores(self, replies: Sequence[Reply]) -> list[float]:
        """Look for the text in each reply."""
        return [float(self._stands_in(reply)) for reply in replies]

    def _stands_in(self, reply: Reply) -> bool:
        said, wanted = reply.text.strip(), (reply.reference if self.text is None else self.text).strip()
        if self.ignore_case:
            said, wanted = said.casefold(), wanted.casefold()
        return wanted in said if wanted else not said


class TokenF1(Metric):
    """How many words a reply shares with the row's: the harmonic mean of precision and recall, from 0 to 1.

    As in SQuAD's script (Rajpurkar et al. 2016, arXiv:1606.05250; version 2.0 for empty answers): words are what white
    space separates once both are in lower case, without ASCII punctuation and articles, and a word counts as often as
    both have it. Where nothing is left of one of the two, the score is 1 if nothing is left of either, else 0.
    """

    type: Literal["token_f1"] = "token_f1"

    def scores(self, replies: Sequence[Reply]) -> list[float]:
        """Count shared words."""
        return [_f1(squad(reply.text).split(), squad(reply.reference).split()) for reply in replies]


def _f1(said: Sequence[str], wanted: Sequence[str]) -> float:
    if not (said and wanted):
        return float(said == wanted)
    shared = (Counter(said) & Counter(wanted)).total()
    # 2PR / (P + R), where P = shared / said and R = shared / wanted.
    return 2 * shared / (len(said) + len(wanted))
