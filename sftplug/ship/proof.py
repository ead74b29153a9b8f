"""Is what will be served what was trained? An exported model, read by the program that runs it, and the trained one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftplug.errors import ModelError, TemplateError
from sftplug.model.prompt import render_prompt
from sftplug.ship.compare import Difference, difference, logits_at, probes
from sftplug.ship.replies import Answering, places

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from sftplug.ship.rows import MeasuredRows
    from sftplug.types.served_model import ServedModel

PROMPTS, REPLY = 8, 32
"""So many prompts are answered, with so many tokens each at most."""
CONVERSATIONS: tuple[Sequence[Mapping[str, str]], ...] = (
    ({"role": "user", "content": "What is 12 + 30?"},),
    ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "  Hi!\n\n- a\n- bß €"}),
    (
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "Two."},
        {"role": "user", "content": "Three?"},
    ),
)
"""What a template makes of these must be the same for both; one that refuses a conversation is not asked about it."""


@dataclass(frozen=True)
class Trained:
    """The trained model, and all that is compared of it: measured once, for each engine."""

    tokenizer: PreTrainedTokenizerBase
    probes: list[tuple[list[int], list[int]]]
    """Rows, and the positions at which logits are compared."""
    logits: list[Tensor]
    prompts: list[list[int]]
    """Held-out prompts, as they were trained."""
    replies: list[list[int]]
    dtype: str
    what: str
    """What the rows are."""


def trained(folder: Path, model: PreTrainedModel, rows: MeasuredRows, ends: Sequence[int]) -> Trained:
    """Return what the model in `folder`, loaded as `model`, says on `rows`; its replies end at the tokens `ends`.

    Raises ModelError where no row has a trained token.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    wanted = probes(rows.rows)
    if not wanted:
        raise ModelError("there are no rows with trained tokens to compare the exported model on.")
    prompts = [place.prompt for place in places(rows.rows, PROMPTS)]
    # One at a time: what is compared is the model, and not how padding is computed.
    answering = Answering(model, tokenizer, ends, 1, REPLY)
    replies = [answering.answer([prompt])[0] for prompt in prompts]
    dtype = str(model.dtype).removeprefix("torch.")
    return Trained(tokenizer, wanted, logits_at(model, wanted), prompts, replies, dtype, rows.what)


@dataclass(frozen=True, slots=True)
class Proof:
    """What came of comparing one engine's model with the trained one."""

    engine: str
    difference: Difference
    prompts: int
    equal_replies: int
    """So many prompts were answered alike, to the last token."""
    problems: tuple[str, ...]
    """Why it is not what was trained; empty when it is."""

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        replies = {"prompts": self.prompts, "equal_replies": self.equal_replies}
        return {"engine": self.engine, "difference": self.difference.to_dict(), **replies}


def proof(known: Trained, served: ServedModel, allowed: float) -> Proof:
    """Compare one engine's model with the trained one, whose logits may be `allowed` apart."""
    problems = [*_other_ids(known, served)]
    found = [served.logits(ids)[positions].float().cpu() for ids, positions in known.probes]
    apart = difference(known.logits, found)
    if not apart.relative <= allowed:  # not a number is no smaller either
        problems.append(
            f"its logits differ by {apart.relative:.2%} of their standard deviation on average, and {allowed:.2%} is "
            f"allowed (the same most likely token at {apart.same_top:.1%} of {apart.positions} positions)"
        )
    said = [served.reply(prompt, REPLY) for prompt in known.prompts]
    equal = sum(one == other for one, other in zip(said, known.replies, strict=True))
    problems += _missed_stops(known, said)
    return Proof(served.engine, apart, len(said), equal, tuple(problems))


def _other_ids(known: Trained, served: ServedModel) -> Iterator[str]:
    """Yield the first prompt, and the first conversation, of which the engine makes other tokens."""
    texts = [known.tokenizer.decode(prompt) for prompt in known.prompts]
    for text in texts:
        wanted = known.tokenizer(text, add_special_tokens=False)["input_ids"]
        if said := _first_difference(known, wanted, served.text_ids(text)):
            yield f"of the rendered prompt {text[:60]!r}… it makes other tokens: {said}"
            break
    for messages in CONVERSATIONS if known.tokenizer.chat_template else ():
        rendered = _rendered(known.tokenizer, messages)
        if rendered is None:
            continue
        if said := _first_difference(known, rendered, served.chat_ids(messages)):
            yield f"of the conversation {messages[-1]['content'][:60]!r} it makes other tokens: {said}"
            break


def _rendered(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]]) -> list[int] | None:
    """Return the ids of a conversation; None where the template refuses it, as some refuse a system turn."""
    try:
        text = render_prompt(tokenizer, messages)
    except TemplateError:
        return None
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _first_difference(known: Trained, wanted: Sequence[int], got: Sequence[int]) -> str:
    """Return where two lists of tokens part, in words; empty when they are the same."""
    if list(wanted) == list(got):
        return ""
    first = known.tokenizer.bos_token_id
    if first is not None and list(got) == [first, *wanted]:
        return f"it puts {known.tokenizer.convert_ids_to_tokens(first)!r} before what has it already, or needs none"
    at = next((i for i, (a, b) in enumerate(zip(wanted, got, strict=False)) if a != b), min(len(wanted), len(got)))
    names = [[*known.tokenizer.convert_ids_to_tokens(ids[at : at + 3])] for ids in (list(wanted), list(got))]
    return f"{names[1]} at token {at}, where training had {names[0]}"


def _missed_stops(known: Trained, said: Sequence[Sequence[int]]) -> Iterator[str]:
    """Yield a sentence where no reply stops that stopped in the trained model."""
    stopped = [index for index, reply in enumerate(known.replies) if len(reply) < REPLY]
    if stopped and all(len(said[index]) >= REPLY for index in stopped):
        yield f"it stops at none of {len(stopped)} replies at which the trained model stops"


def refuse(proofs: Sequence[Proof], exporter: str) -> None:
    """Raise ModelError with every reason for which an engine's model is another than the trained one."""
    reasons = [f"  {found.engine}: {text}." for found in proofs for text in found.problems]
    if reasons:
        text = f"what exporter {exporter} wrote is not what was trained, and nothing of it was kept:"
        raise ModelError("\n".join([text, *reasons]))
