"""What an argument is called by whoever gives it: an option on the command line, a keyword in Python."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_COMMANDED = ContextVar("commanded", default=False)
_FLAGS = frozenset(("--in-place", "--overwrite", "--resume"))
_IN_PYTHON = {"--no-plugin": "without"}
"""Options that are not called in Python as they are here, without dashes."""
_LISTS = frozenset(("--no-plugin",))


@contextmanager
def commanded() -> Iterator[None]:
    """Let `argument` speak of options: a command is run."""
    token = _COMMANDED.set(True)
    try:
        yield
    finally:
        _COMMANDED.reset(token)


def argument(option: str, value: object = None) -> str:
    """Return what to write for an option of the command line, with its value if there is one.

    ``--no-plugin acme`` under a command, and ```without=['acme']``` in a program that calls sftplug.
    """
    if _COMMANDED.get():
        return option if value is None else f"{option} {value}"
    name = _IN_PYTHON.get(option, option.removeprefix("--").replace("-", "_"))
    if option in _FLAGS:
        return f"`{name}=True`"
    if value is None:
        return f"`{name}`"
    return f"`{name}={[value] if option in _LISTS else value!r}`"
