"""Let a trained model answer rows by itself, and score what it says.

Only token ids are kept of what is generated: no logits, and no cache beyond a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 - loaded only when a model is measured

from sftplug.errors import DataError, RowError
from sftplug.plugin.calls import metric_label, metric_scores
from sftplug.plugin.components import Metric
from sftplug.training.loss_sums import CODES
from sftplug.types.conversation import Reply
from sftplug.types.loss_groups import NO_TAG, LossGroups
from sftplug.types.tokens import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from sftplug.data.parse import ReplyReader
    from sftplug.types.decoded import Decoded


@dataclass(frozen=True, slots=True)
class ReplyPosition:
    """A place in a row where the model is to answer."""

    prompt: list[int]
    reply: list[int]
    """What the row says there."""
    group: int
    row: int


def places(rows: Sequence[Mapping[str, Any]], count: int | None) -> Iterator[ReplyPosition]:
    """Yield the last stretch of trained tokens of `count` rows, spread evenly over all, and what stands before it.

    A row in which nothing is trained, or nothing stands before, has no such place.
    """
    total = len(rows)
    wanted = min(count or total, total)
    for index in (number * total // wanted for number in range(wanted)):
        row = rows[index]
        labels = row["labels"]
        # Of the labels -100 -100 5 6 -100 7 8 the place is at 7: the reply is 7 8, and the prompt all that stands
        # before it.
        end = max((at + 1 for at, label in enumerate(labels) if label != IGNORED), default=0)
        start = end
        while start > 0 and labels[start - 1] != IGNORED:
            start -= 1
        if 0 < start < end:
            ids = list(row["input_ids"])
            yield ReplyPosition(ids[:start], ids[start:end], int(row["provenance"][start]) // CODES, index)


@dataclass(frozen=True, slots=True)
class Answering:
    """How replies are generated: greedily, `size` rows at a time."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    ends: Sequence[int]
    """Ids of the tokens that end a reply."""
    size: int
    max_new_tokens: int
    reader: ReplyReader | None = None
    """Reads replies back into messages; None for a model without a chat template."""

    def replies(self, asked: Sequence[ReplyPosition], origins: Sequence[str], groups: LossGroups) -> Iterator[Reply]:
        """Yield a reply for each place; `origins` say where its row stands, `groups` of what it is."""
        for first in range(0, len(asked), self.size):
            batch = asked[first : first + self.size]
            answers = self._generated([place.prompt for place in batch])
            for place, ids, origin in zip(batch, answers, origins[first : first + self.size], strict=True):
                said, wanted, prompt = map(self._text, (self._until_end(ids), place.reply, place.prompt))
                group = groups.groups[place.group]
                read = self._read(place, ids)
                yield Reply(said, wanted, prompt, origin, groups.sources[group.source], group.tags, *read)

    def answer(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """Return the ids of each answer, up to and without the first token that ends it."""
        return [self._until_end(ids) for ids in self._generated(prompts)]

    def _generated(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """Return the ids of each answer, what follows its end too."""
        # Prompts of 2 and 4 tokens are padded to 4 on the left, so that every answer begins at 4.
        width, pad = max(map(len, prompts)), int(self.tokenizer.pad_token_id)
        ids = torch.tensor([[*[pad] * (width - len(prompt)), *prompt] for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=ids.to(self.model.device),
                attention_mask=mask.to(self.model.device),
                max_new_tokens=self.max_new_tokens,
                do_sample=False,
                eos_token_id=list(self.ends) or None,
                pad_token_id=pad,
            )
        return [list(row) for row in out[:, width:].tolist()]

    def _read(self, place: ReplyPosition, ids: list[int]) -> tuple[Decoded | None, Decoded | None]:
        """Return the answer and the row's reply as messages."""
        if self.reader is None:
            return None, None
        end = len(self._until_end(ids)) + 1  # a call may be known by the token that ends it
        said, wanted = (self.reader.read_after(place.prompt, reply) for reply in (ids[:end], place.reply))
        return said, wanted

    def _until_end(self, ids: list[int]) -> list[int]:
        return ids[: next((at for at, token in enumerate(ids) if token in self.ends), len(ids))]

    def _text(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))


def scored(metrics: Sequence[Metric], replies: Sequence[Reply]) -> dict[str, dict[str, Any]]:
    """Return for each metric the mean and the number of its scores, of all replies and of those of each source and tag.

    Raises DataError naming the row by which a metric cannot score, PluginError for scores that are none.
    """
    found = {}
    for metric in metrics:
        scores = _scores(metric, replies)
        by_tag = {tag: _split(scores, [reply.tags.get(tag, NO_TAG) for reply in replies]) for tag in _tags(replies)}
        found[metric_label(metric)] = {
            **_mean(scores),
            "by_source": _split(scores, [reply.source for reply in replies]),
            **({"by_tag": by_tag} if by_tag else {}),
        }
    return found


def _tags(replies: Sequence[Reply]) -> list[str]:
    return list(dict.fromkeys(tag for reply in replies for tag in reply.tags))


def _split(scores: Sequence[float], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return name -> mean and number of the scores of that name."""
    groups: dict[str, list[float]] = {}
    for name, score in zip(names, scores, strict=True):
        groups.setdefault(name, []).append(score)
    return {name: _mean(group) for name, group in groups.items()}


def _mean(scores: Sequence[float]) -> dict[str, Any]:
    return {"mean": sum(scores) / len(scores), "rows": len(scores)}


def _scores(metric: Metric, replies: Sequence[Reply]) -> list[float]:
    try:
        return metric_scores(metric, replies)
    except RowError:
        for reply in replies:  # one by one, to name the row
            try:
                metric_scores(metric, [reply])
            except RowError as error:
                why = f"{error.field} {error.reason}"
                text = f"{reply.origin}: the metric '{metric_label(metric)}' cannot score this row: its {why}."
                raise DataError(f"{text} Fix the row, or leave the metric out.") from error
        raise
