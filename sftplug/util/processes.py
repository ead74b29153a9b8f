"""Which of several processes this is, and what they tell each other.

Launchers say it in the environment: ``RANK``, ``WORLD_SIZE`` and ``LOCAL_RANK``, as `torchrun` and `accelerate launch`
set them. A process of its own is the main one of one.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import traceback
from typing import Any, NoReturn

from sftplug.util.redact import without_secrets

ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
"""Where a launcher of torch wants to read why a process failed."""


def rank() -> int:
    """Return the number of this process among all, 0 for the main one."""
    return int(os.environ.get("RANK") or 0)


def world_size() -> int:
    """Return how many processes there are, on all nodes."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def is_main() -> bool:
    """Whether this process speaks and writes for all."""
    return rank() == 0


def is_launched() -> bool:
    """Whether a launcher has started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def share(value: Any) -> Any:
    """Return the main process's `value` in every process; the others wait for it."""
    if world_size() == 1:
        return value
    import torch.distributed

    box = [value]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]


def most(number: int) -> int:
    """Return the largest `number` that any process has; all must call it at the same time."""
    if world_size() == 1:
        return number
    import torch

    box = torch.tensor([number])
    torch.distributed.all_reduce(box, op=torch.distributed.ReduceOp.MAX, group=_on_cpu())
    return int(box)


def leave() -> None:
    """Part from the other processes, once all is done: a process that has left cannot meet them again."""
    if "torch" not in sys.modules:  # as in the command that only starts others: it has met nobody
        return
    import torch.distributed

    if torch.distributed.is_initialized():
        wait_for_all()
        torch.distributed.destroy_process_group()


def wait_for_all() -> None:
    """Wait until the other processes have come as far, if there are any."""
    import torch.distributed

    if torch.distributed.is_initialized():
        torch.distributed.barrier()


_groups: list[Any] = []


def _on_cpu() -> Any:
    """Return a group that talks without the accelerators, so that asking does not wait for them."""
    import torch.distributed

    if not _groups:
        talks_on_cpu = torch.distributed.get_backend() == "gloo"
        _groups.append(torch.distributed.group.WORLD if talks_on_cpu else torch.distributed.new_group(backend="gloo"))
    return _groups[0]


def report_failure(error: BaseException, exit_code: int, *, refusal: bool) -> None:
    """Tell the launcher why this process ends, in the form that torch's launchers read; called while it is handled."""
    place = os.environ.get(ERROR_FILE)
    if not place:
        return
    now = time.time()
    extra = {
        "py_callstack": traceback.format_exc(),
        "timestamp": str(int(now)),
        "time": now,
        "host": socket.gethostname(),
        "text": "\n".join([str(error), *getattr(error, "__notes__", ())]),
        "exit_code": exit_code,
        "refusal": refusal,
    }
    with open(place, "w", encoding="utf-8") as file:  # noqa: PTH123 - a file of the launcher's
        told = {"message": {"message": f"{type(error).__name__}: {error}", "extraInfo": extra}}
        json.dump(without_secrets(told), file)


def end(exit_code: int) -> NoReturn:
    """End this process, which has failed.

    One of several ends at once: while Python tidies up, the others would notice that its connections are closed, end
    first, and be taken for the cause.
    """
    if world_size() > 1 and os.environ.get(ERROR_FILE):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)
    sys.exit(exit_code)
