"""The process that renders templates of which nobody knows how long they take; see `enforce`."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import traceback
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from sftplug.data.render.budget import PER_SIZE, SECONDS, Budget
from sftplug.errors import TemplateError, TemplateStopped

os.environ["USE_TORCH"] = "0"  # transformers would load it, which takes seconds and memory
from sftplug.data.render.template import Template

_SLOW = 5.0
"""Seconds after which the process ends itself although nobody ended it: whoever asked is gone."""


def serve() -> None:
    """Answer requests until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever asks decides
    answers = os.fdopen(os.dup(1), "wb")
    # Whatever a library prints goes to stderr: stdout, of which the copy is kept for answers, carries nothing else.
    os.dup2(2, 1)
    _answer("", "", "text", ([],), {})  # what is loaded late is loaded now
    # Only now, when all is loaded: the bound is so much more than the process has by then.
    _bound_memory(int(sys.argv[2]))
    _send(answers, ("answer", None))
    while True:
        try:
            request = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        _set_alarm(SECONDS + _SLOW + PER_SIZE * len(repr(request[3:])))
        answer = _answer(*request)
        _set_alarm(0)
        _send(answers, answer)


def _answer(source: str, name: str, method: str, args: Any, kwargs: Any) -> tuple[str, Any]:
    try:
        return "answer", getattr(_template(source, name), method)(*args, **kwargs)
    except TemplateStopped as error:
        return "stopped", str(error.__cause__)  # what was too much
    except TemplateError as error:
        return "refused", str(error)
    except MemoryError:
        return "stopped", "it takes more memory than it may"
    except Exception:  # noqa: BLE001 - whoever asked shall know
        return "failed", traceback.format_exc()


@lru_cache(maxsize=64)
def _template(source: str, name: str) -> Template:
    return Template(source, name, budget=Budget(guarded=True))


def _send(answers: BinaryIO, answer: tuple[str, Any]) -> None:
    answers.write(pickle.dumps(answer))
    answers.flush()


def _bound_memory(megabytes: int) -> None:
    """Let this process take so much more memory than it has, where the system can see to it."""
    try:
        import resource
    except ImportError:  # Windows: only its budget bounds it
        return
    held = Path("/proc/self/statm")
    pages = int(held.read_text().split()[0]) if held.exists() else 0
    most = pages * resource.getpagesize() + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _set_alarm(seconds: float) -> None:
    """Let the system end this process after so many seconds; 0 for never."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)
