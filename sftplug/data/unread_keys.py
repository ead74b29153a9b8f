"""Keys inside of messages that nothing reads: those that may be meant for the model, and the line for all others."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sftplug.errors import did_you_mean
from sftplug.types.ledger import Account

_MEANT = {
    "`reasoning_content`, what the assistant thinks": {
        "reason",
        "reasoning",
        "think",
        "thinking",
        "thought",
        "thoughts",
    },
    "`tool_calls`": {"call", "calls", "toolcalls", "functioncall", "functioncalls"},
    "the column of tools beside the messages": {"tool", "tools", "function", "functions", "schema"},
    "`train`, `loss` or `weight`, what a message counts in the loss": {"loss", "mask", "masked", "train", "trainable"},
    "a turn of the role `system`": {"system", "instructions"},
}
"""What reads such a thing -> words in the names that people give to it."""
_READ = ("role", "content", "tool_calls", "reasoning_content", "name", "tool_call_id", "train", "loss", "weight")
_NO_TEXT = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}
_NAMES = 50
"""So many keys are named."""


def unread_keys(account: Account) -> Iterator[str]:
    """Yield a paragraph for each key that may be meant for the model, and one for all others together.

    Where ``thought`` is left out with ten keys that nobody needs, the model would never learn to think.
    """
    others = []
    for path, rows in account.unread_keys.most_common():
        meant = _meant(path.rpartition(".")[2])
        if meant is None:
            others.append(path)
            continue
        yield (
            f"{rows:,} of {account.rows:,} rows of {account.source} have `{path}`, which nothing reads and which may "
            f"be meant for {meant}. If it is, rename the key in the rows. If not, say so beside the `format`: "
            f"`ignore: [{quoted(path)}]`."
        )
    if others:
        names = ", ".join(quoted(path) for path in others[:_NAMES])
        names += f" … and {len(others) - _NAMES:,} more" if len(others) > _NAMES else ""
        yield (
            f"{account.source} has keys in its messages that nothing reads: {', '.join(others[:_NAMES])}. If the model "
            f"need not see them, say so beside the `format` with `ignore: [{names}]`, or for all data with "
            "`data.on_unread_column: report`."
        )


def _meant(key: str) -> str | None:
    """Return what reads such a thing as `key` is the name of; None where it seems to be nothing of the model's."""
    words = set(re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", key).lower()))
    found = next((reader for reader, called in _MEANT.items() if words & called), None)
    if found is None and (hint := re.search(r"'([^']*)'", did_you_mean(key, _READ))):
        return f"`{hint[1]}`"
    return found


def quoted(path: str) -> str:
    """Return a text as a list in YAML holds it, where brackets and commas mean something else."""
    if re.fullmatch(r"[A-Za-z_][\w-]*", path) and path.lower() not in _NO_TEXT:
        return path
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'


def offered_options(account: Account) -> Iterator[str]:
    """Yield a line for each option of the format that would let rows in which do not fit."""
    for name, values in account.options.items():
        said = ", ".join(f"{quoted(key)}: {value}" for key, value in values.items())
        yield f"  Way out, if that is what it means: in the format, `{name}: {{{said}}}`."
