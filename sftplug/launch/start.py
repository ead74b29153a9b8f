"""Start the processes with `accelerate launch`, and say which of them failed, and why."""

from __future__ import annotations

import logging
import math
import os
import signal
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftplug.errors import Interrupted, LaunchError, ModelError, RunError
from sftplug.launch.check import launch_problems
from sftplug.launch.config import node_rank, on_cpu, processes, write_config
from sftplug.libraries.logging import quiet_libraries
from sftplug.recipe.model import LaunchSection, Recipe
from sftplug.run import RunDirectory

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

LAST_WORDS = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"
"""Seconds that the processes are given to end, after a signal or when one of them has failed; then they are killed."""


def start(recipe: Recipe, launch: LaunchSection, command: Sequence[str]) -> None:
    """Run ``sftplug COMMAND`` in the processes that the recipe's ``launch`` section asks for, until all have ended.

    Raises ModelError when that cannot work here, LaunchError with rank, reason and traceback when a process failed,
    Interrupted after a signal.
    """
    if problems := launch_problems(recipe):
        raise ModelError("\n".join(problems))
    quiet_libraries()
    _environment(recipe, launch)
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # What it logs of a failure, `LaunchError` says in fewer words.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="sftplug-") as folder:
        config = write_config(recipe, launch, Path(folder))
        options = ["--config_file", str(config), "--module", "sftplug", *command]
        try:
            launch_command(launch_command_parser().parse_args(options))
        except ChildFailedError as error:
            explained = _explained(error)
            _write_down(recipe, launch, explained)
            raise explained from None
        except SignalException as error:
            raise Interrupted("", int(error.sigval)) from None


def _environment(recipe: Recipe, launch: LaunchSection) -> None:
    """Set what the processes inherit."""
    os.environ.setdefault(LAST_WORDS, "120")
    if on_cpu(recipe):
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else DeepSpeed, where it is installed, warns of finding none
    if on_cpu(recipe) and "OMP_NUM_THREADS" not in os.environ:
        # The cores shared out: with all of them in each process, threads would wait for each other.
        here = max(processes(recipe, launch) // launch.nodes, 1)
        os.environ["OMP_NUM_THREADS"] = str(max((os.cpu_count() or 1) // here, 1))


def _write_down(recipe: Recipe, launch: LaunchSection, error: LaunchError) -> None:
    """Let the run's record name the process that failed; the main one knew only that it had lost another."""
    directory = RunDirectory(Path(recipe.output))
    if node_rank(launch) or not str(error):
        return
    with suppress(RunError, OSError):
        state = directory.state()
        if state.state != "finished" and state.attempts:
            state.state, state.reason = "failed", str(error)
            state.attempts[-1].update(state="failed", reason=str(error))
            directory.write_state(state)


def _explained(failed: ChildFailedError) -> LaunchError:
    """Return the error that tells which process failed first, and why."""
    rank, failure = min(failed.failures.items(), key=lambda item: _when(item[1]))
    extra = _extra(failure)
    if extra.get("refusal"):
        # The main process has said so already.
        return LaunchError(f"rank {rank}: {extra['text']}" if rank else "", int(extra["exit_code"]))
    if extra:
        reason = f"failed:\n{extra['py_callstack'].rstrip()}"
    elif failure.exitcode < 0:
        reason = f"was killed by {failure.signal_name()}. If it was not you, the machine may have run out of memory."
    else:
        reason = f"ended with exit code {failure.exitcode} and said nothing."
    where = f"process {failure.pid}" + (f" on {extra['host']}" if "host" in extra else "")
    return LaunchError(f"rank {rank} ({where}) {reason}\nThe other processes were ended.", 1)


def _extra(failure: Any) -> dict[str, Any]:
    message = failure.message
    extra = message.get("extraInfo", {}) if isinstance(message, dict) else {}
    return extra if isinstance(extra, dict) and "text" in extra else {}


def _when(failure: Any) -> float:
    """Return when a process failed; one that was killed before any that lost it.

    The launcher ends the others with SIGTERM, and kills those that then take too long.
    """
    if failure.exitcode == -signal.SIGTERM:
        return math.inf
    if failure.exitcode < 0:
        # Killed by the launcher, which waits that long after the first failure, it comes a second behind that one.
        # Killed by the system, it comes long before those that lost it.
        return float(failure.timestamp) + 1 - float(os.environ[LAST_WORDS])
    return float(_extra(failure).get("time", failure.timestamp))
