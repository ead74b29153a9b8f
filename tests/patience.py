"""Wait for processes as long as they work, however busy the machine is; one that hangs is told, with its stacks.

The clock says nothing of a test: two cores that have other work take ten times as long. What tells a process that hangs
is that it, and all that it has started, use no processor time; one that runs in circles uses very much of it.
"""

import os
import signal
import subprocess
import time
from multiprocessing.connection import wait

import psutil

IDLE = 180.0
"""Seconds in which a process uses next to no processor time, when it hangs."""
NEXT_TO_NONE = 1.0
"""Seconds of processor time; what merely waits still looks at the clock now and then."""
ENDLESS = 1800.0
"""Seconds of processor time without a sign of progress, when it runs in circles."""
LAST_WORDS = 20.0
"""Seconds that a process is given to write its stacks."""


class Hung(AssertionError):
    """Processes that do nothing, or the same for ever."""


class Watch:
    """Looks at processes, and at all that they have started: do they still work?"""

    def __init__(self, pids=None, progress=lambda: None):
        """Begin, with processes or, without, with all that this one has started.

        What `progress` returns changes whenever they have come further.
        """
        self._pids, self._progress = pids, progress
        self._last = {"progress": progress(), "used": used(self._pids)}
        self._rest = (time.monotonic(), 0.0)
        self._spent = 0.0

    def fault(self):
        """Return why they are taken to hang; None while they work."""
        now, seen = time.monotonic(), {"progress": self._progress(), "used": used(self._pids)}
        self._spent += max(seen["used"] - self._last["used"], 0.0)
        if seen["progress"] != self._last["progress"]:
            self._spent, self._rest = 0.0, (now, 0.0)
        self._last = seen
        if self._spent - self._rest[1] > NEXT_TO_NONE:
            self._rest = (now, self._spent)
        if now - self._rest[0] > IDLE:
            return f"no processor time was used for {now - self._rest[0]:.0f} s"
        if self._spent > ENDLESS:
            return f"{self._spent:.0f} s of processor time were used without coming any further"
        return None


def used(pids=None):
    """Return seconds of processor time of processes, and of all that they have started; see `Watch`."""
    return sum(sum(process.cpu_times()[:4]) for process in _alive(pids))


def _alive(pids):
    """Return the processes and all that they have started, those that have ended left out."""
    if pids is None:
        return [process for process in psutil.Process().children(recursive=True) if _has_times(process)]
    found = []
    for pid in pids:
        try:
            process = psutil.Process(pid)
            found += [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
    return [process for process in found if _has_times(process)]


def _has_times(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE and process.cpu_times() is not None
    except psutil.Error:
        return False


def stop(pids):
    """Let processes write their stacks where they write errors, and end them; those without faulthandler just end."""
    found = _alive(pids)
    for process in found:
        _send(process, signal.SIGABRT)
    _, stubborn = psutil.wait_procs(found, timeout=LAST_WORDS)
    for process in stubborn:
        _send(process, signal.SIGKILL)


def _send(process, number):
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def finish(processes, progress=lambda: None, said=lambda: ""):
    """Wait for processes of `multiprocessing`. Raises Hung, with what `said` returns once they have been ended."""
    watch = Watch(progress=progress)  # the process that imports the libraries and forks them is not among them
    while running := [process for process in processes if process.is_alive()]:
        wait([process.sentinel for process in running], timeout=1)
        if fault := watch.fault():
            stop([process.pid for process in running])
            for process in processes:
                process.join()
            raise Hung(f"hangs: {fault}.\n{said()}")
    for process in processes:
        process.join()


def wait_for(process):
    """Wait for a process of `subprocess`, whose output goes elsewhere; return its exit code. Raises Hung."""
    watch = Watch([process.pid])
    while True:
        try:
            return process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            if fault := watch.fault():
                stop([process.pid])
                raise Hung(f"{process.args} hangs: {fault}.") from None


def run(command, **options):
    """Run a command to its end, as `subprocess.run` does, and return what it printed. Raises Hung with its stacks."""
    environment = {**(options.pop("env", None) or os.environ), "PYTHONFAULTHANDLER": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment, **options) as process:
        watch = Watch([process.pid])
        while True:
            try:
                output, errors = process.communicate(timeout=1)
                return subprocess.CompletedProcess(command, process.returncode, output, errors)
            except subprocess.TimeoutExpired:
                if fault := watch.fault():
                    stop([process.pid])
                    output, errors = process.communicate()
                    raise Hung(f"{command} hangs: {fault}.\n{output}{errors}") from None
