"""Signals that ask a run to end: it does, once its step is done and a checkpoint is saved."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from sftplug.errors import Interrupted
from sftplug.util.processes import is_main, most, world_size
from sftplug.util.streams import OUTPUT, let_go

if TYPE_CHECKING:
    from transformers import TrainingArguments

REPEATED = (signal.SIGINT, signal.SIGTERM)
"""Whoever sends one of these a second time does not want to wait."""
HUNG_UP = getattr(signal, "SIGHUP", None)
"""The terminal was closed, which shell and system may both say. Windows has none."""
UNREAD = getattr(signal, "SIGPIPE", None)
"""Nobody reads what is printed. It is not listened to but looked for: who prints would hear of it as an error first."""


class SignalHandler:
    """Whether a signal has asked the run to end."""

    def __init__(self, tell: Callable[[], object] = lambda: None) -> None:
        """Listen to nothing yet; `tell` is called at the first signal."""
        self.signal: int | None = None
        """As agreed upon: what several processes do next, all of them do."""
        self._tell = tell
        self._seen: int | None = None
        self._asked = False
        self._writing = False
        self._process = 0
        self._repeated: tuple[int, ...] = ()

    def agree(self) -> bool:
        """Whether a signal has come to any of the processes; all of them ask at the same points."""
        self.look()
        self.signal = most(self._seen or 0) or None
        return self.signal is not None

    def look(self) -> None:
        """Notice that nobody reads the output any more before something is printed: rich would end the process then."""
        if self._process and OUTPUT in let_go() and UNREAD is not None:
            self._note(UNREAD, None)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note the first signal, to be met at the end of the step; a second SIGINT or SIGTERM ends the process at once.

        What the process was started to ignore (``nohup``) is ignored.
        """
        if threading.current_thread() is not threading.main_thread():
            yield  # Python delivers signals to the main thread only
            return
        before = {number: signal.getsignal(number) for number in (*REPEATED, HUNG_UP) if number}
        heard = [number for number, how in before.items() if how != signal.SIG_IGN]
        self._process, self._repeated = os.getpid(), tuple(number for number in heard if number in REPEATED)
        for number in heard:
            signal.signal(number, self._note)
        try:
            yield
        finally:
            self._process = 0
            for number in heard:
                signal.signal(number, before[number])

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While a checkpoint is written, let a second signal wait until it is whole; a third one does not wait."""
        here = threading.current_thread() is threading.main_thread() and world_size() == 1
        self._writing = here
        if here and self._asked:
            self._handle(self._note)
        try:
            yield
        finally:
            self._writing = False
            if here and self._asked:
                self._handle(signal.SIG_DFL)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a data worker, which goes when this process does
            return
        first, again = self._seen is None, self._asked
        if number in REPEATED:
            self._seen, self._asked = number, True
        elif first:
            self._seen = number
        let_go()
        if first:
            self._tell()
        self._answer(number, first=first, again=again)

    def _answer(self, number: int, *, first: bool, again: bool) -> None:
        """Say what happens next, and let the next signal end the process at once if it should."""
        if number not in REPEATED:
            if first and is_main():
                _say(f"{_name(number)}: {_CLOSED if number == HUNG_UP else _UNREAD}.")
        elif world_size() > 1:  # a launcher may repeat a signal, and kills those that take too long
            if is_main():
                _say(f"{_name(number)}: {_FIRST}.")
        else:
            # From then on the system itself meets the next signal, and ends the process in whatever it does.
            if again or not self._writing:
                self._handle(signal.SIG_DFL)
            _say(f"{_name(number)}: {_AGAIN if again else _WRITING if self._writing else f'{_FIRST}; {_SECOND}'}.")

    def _handle(self, handler: Any) -> None:
        for number in self._repeated:
            signal.signal(number, handler)


_FIRST = "the step ends, then a checkpoint is saved"
_CLOSED = f"the terminal is closed: {_FIRST}"
_UNREAD = f"nobody reads the output any more: {_FIRST}"
_SECOND = "a second signal ends the run at once"
_WRITING = "the checkpoint that is being written is finished, then the run ends"
_AGAIN = f"{_WRITING}; one more ends it at once, without that checkpoint"


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _name(number: int) -> str:
    return signal.Signals(number).name


def interrupted(number: int, args: TrainingArguments, step: int) -> Interrupted:
    """Return the error that ends a run on a signal, with how to resume."""
    how = "Run the same command again to resume from there."
    if args.save_only_model:
        how = "It holds no optimizer (`train.save_only_model`), so the run cannot resume from there."
    why = " (nobody reads its output any more)" if number == UNREAD else ""
    return Interrupted(
        f"interrupted by {_name(number)}{why}: checkpoint-{step} is saved in {args.output_dir}. {how}", number
    )
