"""What there is to say of a run in a line each: the same for the page and for the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sftplug.recipe.in_words import chosen_names, numbers_in_words, train_in_words
from sftplug.reporting.collect import NOTHING, Report, is_number
from sftplug.types.loss_groups import NO_TAG

STATES = {
    "running": "running, or killed",
    "finished": "finished",
    "failed": "failed",
    "interrupted": "interrupted",
}


def summary(report: Report) -> Iterator[tuple[str, str]]:
    """Yield name and text of what the run came to."""
    state = report.state
    yield "state", STATES.get(state.state, str(state.state))
    if state.reason:
        yield "because", str(state.reason)
    yield "steps", _steps(report)
    held, train = (report.recipe.get(section, {}) for section in ("quantization", "train"))
    for name, value, path in [*numbers_in_words(held), *train_in_words(train, *chosen_names(report.recipe))]:
        yield name, f"{value} ({report.origins.get(path, NOTHING)})"
    if (loss := state.loss if is_number(state.loss) else None) is not None:
        yield "mean loss", f"{loss:.4f}"
    if (last := report.last("loss")) is not None:
        yield "last loss", f"{last:.4f}"
    if evaluations := report.points("eval_loss"):
        step, best = min(evaluations, key=lambda point: point[1])
        yield "eval loss", f"{evaluations[-1][1]:.4f}, lowest {best:.4f} at step {step:g}"
    yield from _replies(report)
    # Between two checkpoints the measurements are ahead of what the run says of itself.
    seconds = max(state.seconds, report.last("seconds") or 0.0)
    tokens = max(state.tokens, report.last("num_tokens") or 0.0)
    yield "tokens", f"{tokens:,.0f}"
    yield "time in the loop", duration(seconds)
    yield "tokens/s", f"{tokens / seconds:,.0f}" if seconds else NOTHING
    if peak := max((value for _, value in report.points("peak_bytes")), default=0.0):
        yield "peak memory", f"{peak / 1e6:,.0f} MB ({'accelerator' if on_accelerator(report) else 'process'})"
    if len(state.attempts) > 1:
        starts = ", ".join(str(attempt.get("from_step", "?")) for attempt in state.attempts)
        yield "attempts", f"{len(state.attempts)}, from steps {starts}"


def _replies(report: Report) -> Iterator[tuple[str, str]]:
    """Yield what each metric said last of the model's own replies."""
    names = dict.fromkeys(name for entry in report.metrics for name in entry if "/" not in name)
    for name in names:
        score, rows = report.last(name), report.last(f"{name}_rows")
        if score is not None and rows is not None:
            yield name.removeprefix("eval_"), f"{score:.4f} of {rows:,.0f} replies"


def _steps(report: Report) -> str:
    state = report.state
    done = max(state.steps, int(report.last("step") or 0))
    return f"{done:,}" if state.max_steps in (None, done) else f"{done:,} of {state.max_steps:,}"


def on_accelerator(report: Report) -> bool:
    """Whether memory was that of an accelerator."""
    return bool(report.environment.get("accelerators"))


def duration(seconds: float) -> str:
    """Return ``1 h 02 min``, ``3 min 07 s`` or ``4.1 s``."""
    if seconds >= 3600:
        return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"
    return f"{int(seconds // 60)} min {int(seconds % 60):02d} s" if seconds >= 60 else f"{seconds:.1f} s"


LEDGER = ("split", "source", "read", "kept", "added", "dropped", "noted", "tokens", "trained", "lost")


def ledger_rows(ledger: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    """Yield a line of `LEDGER` for each source."""
    for split, accounts in ledger.get("splits", {}).items():
        for account in accounts:
            tokens, lost = account.get("tokens", 0), account.get("lost", 0)
            yield (
                split,
                str(account.get("source", "")),
                ", ".join([f"{account.get('read', 0):,}", *processed(account)]),
                *(f"{account.get(name, 0):,}" for name in ("kept", "added")),
                *(counts(account.get(name, {})) for name in ("dropped", "noted")),
                f"{tokens:,}",
                trained(account),
                f"{lost:,.0f}",
            )


def processed(account: Mapping[str, Any]) -> list[str]:
    """Return ``dedupe → 1,003`` for each row processor, with the rows that it left."""
    return [f"{step['processor']} → {step['out']:,}" for step in account.get("processed", ())]


def trained(account: Mapping[str, Any]) -> str:
    """Return how many tokens count in the loss, with their share, and the sum of their weights if it is another number.

    Ledgers of older versions hold the sum only.
    """
    weight, count = account.get("trained", 0), account.get("trained_tokens")
    weighs = f"weight {weight:,.0f}" if count is None or round(weight) != count else ""
    share = f"{count:,} ({count / max(account.get('tokens', 0), 1):.1%})" if count is not None else ""
    return ", ".join(filter(None, (share, weighs)))


def split_rows(report: Report) -> tuple[list[str], list[list[str]]]:
    """Return the heads, and a line for each source, role, part or tag by which the last measurements are split.

    Sources, roles and parts come in the order in which they were measured, then each tag with its values by name.
    """
    found: dict[str, dict[str, float]] = {}
    for entry in report.metrics:
        for name, value in entry.items():
            what, _, of = str(name).partition("/")
            if of and is_number(value) and (what == "loss" or what.startswith("eval_")) and not what.endswith("_rows"):
                found.setdefault(of, {})[what] = float(value)
    heads = list(dict.fromkeys(what for values in found.values() for what in values))
    lines = [
        [of, *(f"{known[head]:.4f}" if head in known else NOTHING for head in heads)]
        for of, known in sorted(found.items(), key=lambda item: _by_tag(item[0]))
    ]
    return ["", *(head.replace("_", " ") for head in heads)], lines


def _by_tag(of: str) -> tuple[str, bool, list[tuple[bool, int, str]]]:
    """Return what sorts ``customer/north`` among its like: by name, ``v9`` before ``v10``, the rest last."""
    tag, slash, value = of.partition("/")
    if not slash:
        return "", False, []  # sorting leaves these as they are
    parts = re.findall(r"\d+|\D+", value)
    return tag, value == NO_TAG, [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]


def counts(found: Mapping[str, int]) -> str:
    """Return ``3 too long, 1 empty``; — for nothing."""
    return ", ".join(f"{number:,} {name}" for name, number in found.items()) or NOTHING


def answers(reports: Sequence[Report]) -> dict[str, list[tuple[int, int, str]]]:
    """Return prompt -> (number of the run, step, answer) of every answer that was kept."""
    found: dict[str, list[tuple[int, int, str]]] = {}
    for run, report in enumerate(reports):
        for sample in report.samples:
            answer = run, int(sample.get("step", 0)), str(sample.get("answer", ""))
            found.setdefault(str(sample.get("prompt", "")), []).append(answer)
    return found
