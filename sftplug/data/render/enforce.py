"""Who makes sure that a template ends: its budget where that can, and otherwise the process that renders it.

Nearly all templates do only what counts its own cost before it runs, and are rendered in this process, within their
budget. One that does anything else (`Unproven`) is rendered in a process of its own from there on: the system bounds
the memory of that process, and it is ended when it takes too long.
"""

from __future__ import annotations

import atexit
import functools
import json
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar, cast

import jinja2

from sftplug.data.render.budget import PER_SIZE, SECONDS, TooMuch, Unproven
from sftplug.errors import TemplateError, TemplateStopped

STARTING = 120.0
"""Seconds that the process may take to start."""
GRACE = 2.0
"""Seconds of waiting beyond the processor time that a template may take."""
MEMORY = 384
"""Megabytes that the process may take for templates."""
_ENDED = "the process that renders it does not survive that"
_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {module} import serve; serve()"

Method = TypeVar("Method", bound=Callable[..., Any])


class Renders(Protocol):
    """A template, as far as it is of interest here."""

    source: str
    name: str
    stopped: TemplateStopped | None
    outside: bool


def bounded(method: Method) -> Method:
    """Make a method that renders raise TemplateStopped when the template does too much, and ever after."""

    @functools.wraps(method)
    def call(self: Renders, *args: Any, **kwargs: Any) -> Any:
        if self.stopped is not None:
            raise TemplateStopped(str(self.stopped))
        try:
            if not self.outside:
                try:
                    return method(self, *args, **kwargs)
                except Unproven:
                    # From now on the template is rendered outside at once: to find it unproven again would cost half a
                    # render each time.
                    self.outside = True
            return _outside.ask(self.source, self.name, method.__name__, args, kwargs)
        except TooMuch as error:
            self.stopped = _stopped(self.name, error)
            raise self.stopped from error

    return cast("Method", call)


def _stopped(name: str, why: object) -> TemplateStopped:
    return TemplateStopped(f"chat template '{name}' is stopped: {why}.")


@contextmanager
def compiling(name: str) -> Iterator[None]:
    """Raise TemplateError for what is not valid Jinja, and TemplateStopped for what is too much of it."""
    try:
        yield
    except TooMuch as error:
        raise _stopped(name, error) from error
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(f"chat template '{name}', line {error.lineno}: {error.message}") from error
    except (RecursionError, MemoryError, SyntaxError) as error:  # of Python, which Jinja compiles to
        raise _stopped(name, "its loops, blocks or expressions are nested too deep to compile") from error
    except (ValueError, OverflowError) as error:  # a number of more digits than Python reads
        raise TemplateError(f"chat template '{name}' is not valid Jinja: {error}") from error


class Outside:
    """The process that renders what is unproven; it starts when the first such template is met."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, source: str, name: str, method: str, args: Any, kwargs: Any) -> Any:
        """Return what `method` of the template returns there. Raises TooMuch for what takes too much."""
        request = pickle.dumps((source, name, method, args, kwargs))
        # The process has one pipe each way: one thread asks, and gets its answer, at a time.
        with self._lock:
            process = self._process = self._process or self._started()
            seconds = SECONDS + GRACE + PER_SIZE * len(request)
            started = time.monotonic()
            try:
                answer = _exchange(process, request, seconds)
            # An answer in the midst of which the process is killed cannot be unpickled.
            except (EOFError, OSError, pickle.UnpicklingError):
                late = time.monotonic() - started >= seconds
                self._end()
                raise TooMuch(f"it takes more than {seconds:.0f} seconds" if late else _ENDED) from None
            if answer[0] == "stopped":
                self._end()  # it may hold much memory
        return _unpacked(*answer)

    def _started(self) -> subprocess.Popen[bytes]:
        # With the ``sys.path`` of this process, which may be another than Python begins with: a test runner adds to it.
        start = _START.format(module="sftplug.data.render.worker")
        command = [sys.executable, "-c", start, json.dumps(sys.path), str(MEMORY)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            _exchange(process, b"", STARTING)
        except (EOFError, OSError) as error:
            process.kill()
            raise TemplateError("the process that renders chat templates cannot be started.") from error
        return process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def close(self) -> None:
        """End the process, if there is one."""
        with self._lock:
            self._end()


def _exchange(process: subprocess.Popen[bytes], request: bytes, seconds: float) -> Any:
    """Return the answer to `request`; the process is ended if it does not answer within `seconds`."""
    assert process.stdin is not None
    assert process.stdout is not None
    # To read from the pipe is to wait until the process answers or is gone: the timer sees to the second.
    timer = threading.Timer(seconds, process.kill)
    timer.daemon = True
    timer.start()
    try:
        if request:
            process.stdin.write(request)
            process.stdin.flush()
        return pickle.load(process.stdout)
    finally:
        timer.cancel()


def _unpacked(kind: str, answer: Any) -> Any:
    if kind == "answer":
        return answer
    if kind == "stopped":
        raise TooMuch(answer)
    if kind == "refused":
        raise TemplateError(answer)
    raise RuntimeError(answer)


_outside = Outside()
atexit.register(_outside.close)
