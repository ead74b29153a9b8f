"""Standard input, output and error: whoever is at their other end may be gone, or never have been there."""

from __future__ import annotations

import io
import os
import select
import stat
import sys

OUTPUT, ERROR = 1, 2
"""Numbers that the system gives them."""


def fill_closed() -> None:
    """Open those with which this process was not started (``2>&-``): nothing can be read there, and nothing is kept.

    Else the next file that is opened would get their number, and all that is printed.
    """
    # The system gives the lowest number that is free: as long as that is 0, 1 or 2, it was one of those missing.
    while (number := os.open(os.devnull, os.O_RDWR)) <= ERROR:
        os.set_inheritable(number, True)
    os.close(number)


def spell_out() -> None:
    """Spell out characters that the output's encoding lacks (``\\u2014``), which would end the command otherwise."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def let_go() -> set[int]:
    """Let what is printed from now on go nowhere where nobody reads it any more; return the pipes of which that is so.

    A terminal that was closed is none of them: whoever wanted the process to end then would have sent a signal.
    """
    gone = [number for number in (OUTPUT, ERROR) if _is_gone(number)]
    pipes = {number for number in gone if not stat.S_ISCHR(os.fstat(number).st_mode)}
    for number in gone:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)
    return pipes


def _is_gone(number: int) -> bool:
    """Whether a pipe has no reader any more, or a terminal was closed."""
    if not hasattr(select, "poll"):  # Windows
        return False
    look = select.poll()
    look.register(number, 0)  # errors are told in any case
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in look.poll(0))
