"""Run recipes in processes of their own, which may be killed; the libraries are imported once, then forked."""

import faulthandler
import multiprocessing
import os
import signal
import sys
from functools import partial
from pathlib import Path

from patience import finish

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["sftplug.training.train", "sftplug.training.trainer", "bitsandbytes"])


def start(arguments, log, environment):
    """Start ``sftplug ARGUMENTS``; what it prints goes to the file `log`."""
    process = CONTEXT.Process(target=_main, args=([str(item) for item in arguments], str(log), environment))
    process.start()
    return process


def call(arguments, log, environment):
    """Run ``sftplug ARGUMENTS`` to its end; return its exit code, negative for the signal that killed it."""
    process = start(arguments, log, environment)
    finish([process], said=Path(log).read_text)
    return process.exitcode


def _main(arguments, log, environment):
    os.environ.update(environment)
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(stream, number)
    faulthandler.enable()  # whoever watches ends this process with SIGABRT if it hangs
    if folder := environment.get("KILLED_WRITING_IN"):
        sys.addaudithook(partial(_kill_in, folder))
    # The data workers are forked, as they are in a process that a shell starts.
    multiprocessing.set_start_method("fork", force=True)
    from sftplug.cli import main

    sys.argv = ["sftplug", *arguments]
    main()


def _kill_in(folder, event, arguments):
    """Kill this process when it is about to open a file in a folder of that name."""
    if event == "open" and isinstance(arguments[0], str | os.PathLike) and folder in Path(arguments[0]).parts:
        os.kill(os.getpid(), signal.SIGKILL)
