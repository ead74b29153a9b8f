"""Columns that nothing reads: those that the format could read, those that the model may be meant to see, and the rest.

Of a ``system_prompt`` among ten columns that nobody needs, the whole list pasted into `ignore` would lose it. So what
seems to be for the model is named apart, and the line to paste never holds it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sftplug.data.unread_keys import quoted
from sftplug.plugin.components import DatasetFormat
from sftplug.types.ledger import Account

_NAMES, _LONGEST_NAME = 50, 100
"""So many columns are named, and so many characters of a name."""


@dataclass(frozen=True, slots=True)
class _Words:
    """How people call a column that is for the model."""

    heads: frozenset[str]
    """One of these is in its name."""
    others: frozenset[str] = frozenset()
    """Beside them only these are."""

    def fit(self, name: str) -> bool:
        words = set(re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()))
        return bool(words & self.heads) and words <= self.heads | self.others


_OF_A_PROMPT = frozenset({"prompt", "message", "msg", "instruction", "instructions", "text", "content", "default"})
_CALLED: Mapping[str, _Words] = {
    "system": _Words(frozenset({"system", "sys"}), _OF_A_PROMPT),
    "tools": _Words(
        frozenset({"tool", "tools", "function", "functions"}),
        frozenset({"available", "list", "schema", "schemas", "definition", "definitions", "json", "spec", "specs"}),
    ),
    "template_kwargs": _Words(frozenset({"kwargs"}), frozenset({"chat", "template"})),
    "reasoning": _Words(
        frozenset({"reasoning", "thinking", "thought", "thoughts", "rationale", "rationales", "cot", "think"}),
        frozenset({"content", "trace", "traces", "process", "text", "steps", "chain", "of"}),
    ),
    "history": _Words(frozenset({"history"}), frozenset({"chat", "dialog", "dialogue", "conversation", "message"})),
    "input": _Words(frozenset({"input", "context", "passage", "background"})),
    "question": _Words(frozenset({"prompt", "question", "instruction", "instructions", "query", "problem"})),
    "choices": _Words(frozenset({"choices", "options", "hint", "hints", "evidence", "documents"})),
}
"""Option of a format that names a column -> how people call such a column. No format of ours has `question` and
`choices`: what is called so is for the model all the same."""


_VERDICTS = frozenset(
    {"label", "correct", "resolved", "accepted", "passed", "success", "successful", "solved", "preferred"}
)
"""How people call a column that says whether a reply is good, but for ``is_`` before it."""


def verdicts(account: Account) -> list[str]:
    """Return columns that nothing reads, that are false in some rows, and whose name says that these are bad."""
    return [name for name in account.false if name.lower().removeprefix("is_") in _VERDICTS]


def sorted_out(account: Account, format: DatasetFormat) -> tuple[dict[str, str], list[str], list[str]]:
    """Return columns that nothing reads.

    First option of the format -> the column that it could read, then what else seems meant for the model, then the
    rest, without `verdicts`.
    """
    could: dict[str, str] = {}
    others, rest = [], []
    for name in (name for name in account.unread if name not in verdicts(account)):
        option = _option_for(name)
        if option is None:
            rest.append(name)
        elif option in could or not _is_free(format, option, account):
            others.append(name)
        else:
            could[option] = name
    return could, others, rest


def unread_columns(account: Account, format: DatasetFormat) -> Iterator[str]:
    """Yield a paragraph for columns that the format could read, for what seems meant for the model, for the rest."""
    could, others, rest = sorted_out(account, format)
    for name in map(quoted, verdicts(account)):
        yield (
            f"{account.source} has a column '{name}', which is false in some rows and may say that these are bad. "
            f"`process: {{filter: {{column: {name}, keep: true}}}}` beside its `format` trains the others alone. If it "
            f"says something else, `ignore: [{name}]`."
        )
    if could:
        yield _readable(account, format, could)
    if others:
        yield (
            f"{account.source} has what seems to be for the model in {', '.join(others)}, and no option of its format "
            f"`{format.type}` reads that. If the model need not see it, `ignore: [{', '.join(map(quoted, others))}]`."
        )
    if rest:
        short = [name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…" for name in rest[:_NAMES]]
        more = f" … and {len(rest) - _NAMES:,} more" if len(rest) > _NAMES else ""
        # Tables that pandas wrote may have a column without a name.
        names = ", ".join(name or "''" for name in short) + more
        yield (
            f"{account.source} has columns that its format does not read: {names}. If that is meant, say so beside its "
            f"`format` with `ignore: [{', '.join(map(quoted, short))}{more}]`, or for all data with "
            "`data.on_unread_column: report`."
        )


def _is_free(format: DatasetFormat, option: str, account: Account) -> bool:
    """Whether the format has an option, and the column that it names is not there."""
    return option in type(format).model_fields and getattr(format, option) not in account.columns


def _readable(account: Account, format: DatasetFormat, could: Mapping[str, str]) -> str:
    """Return the line that reads columns, with the options that the recipe gives the format already."""
    import yaml

    given = format.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"type"})
    line = {"type": format.type, **given, **could}
    said = yaml.safe_dump(line, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True).strip()
    names, ignored = ", ".join(could.values()), ", ".join(map(quoted, could.values()))
    if len(could) == 1:
        return (
            f"{account.source} has a column '{names}', which its format does not read, and an option that may be meant "
            f"for it: `format: {said}` reads it. If not, `ignore: [{ignored}]`."
        )
    return (
        f"{account.source} has columns {names}, which its format does not read, and options that may be meant for "
        f"them: `format: {said}` reads them. If not, `ignore: [{ignored}]`."
    )


def _option_for(column: str) -> str | None:
    """Return the option that seems meant for a column: ``system`` for ``system_prompt``."""
    if len(column) > _LONGEST_NAME or not re.fullmatch(r"[\w.-]+", column):
        return None  # it would have to be quoted
    return next((option for option, called in _CALLED.items() if called.fit(column)), None)
