"""Train recipe files one after the other in two processes, as a launcher would start them.

The processes are forked from one that has imported the libraries. A job that hangs, or a process that dies, fails the
tests of that job and of those after it, with the job's name, the rank and its stacks.
"""

import faulthandler
import json
import os
import traceback
from pathlib import Path

import pytest
from patience import Hung, finish
from run.children import CONTEXT

RANKS = (0, 1)


class Said(dict):
    """What each process said of a job, by the name of its file; asking for a job that did not end fails the test."""

    why = ""

    def __missing__(self, name):
        pytest.fail(f"{name} did not come to its end: {self.why}", pytrace=False)


def train_all(files, port):
    """Train `files` in two processes that meet at `port`; return what each said of each."""
    files = list(map(Path, files))
    processes = [CONTEXT.Process(target=_worker, args=(rank, port, list(map(str, files)))) for rank in RANKS]
    for process in processes:
        process.start()
    said = Said()
    try:
        finish(processes, lambda: [_done(files, rank) for rank in RANKS])
    except Hung as error:
        said.why = f"the processes {error}"
    codes = [process.exitcode for process in processes]
    if any(codes):
        said.why += "".join(_last_words(files, rank, code) for rank, code in zip(RANKS, codes, strict=True))
    for file in files[: min(_done(files, rank) for rank in RANKS)]:
        said[file.stem] = [json.loads(_report(file, rank).read_text()) for rank in RANKS]
    return said


def _report(file, rank):
    return file.with_suffix(f".{rank}.json")


def _done(files, rank):
    return sum(_report(file, rank).exists() for file in files)


def _stacks(files, rank):
    return files[0].parent / f"stacks.{rank}"


def _last_words(files, rank, code):
    """Say in which job a process was when it ended, and where in it."""
    done = _done(files, rank)
    job = files[done].stem if done < len(files) else "its end"
    return f"\nrank {rank} ended with exit code {code}, in {job}:\n{_stacks(files, rank).read_text()}"


def _worker(rank, port, files):
    from sftplug.errors import SftplugError
    from sftplug.libraries.logging import quiet_libraries
    from sftplug.util.processes import leave

    files = list(map(Path, files))
    stacks = _stacks(files, rank).open("w")
    faulthandler.enable(stacks)  # whoever watches ends this process with SIGABRT if it hangs
    number = str(rank)
    os.environ |= {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "DS_ACCELERATOR": "cpu"}
    quiet_libraries()
    environment = dict(os.environ)
    for file in files:
        # What a trainer leaves there would speak to the next one.
        os.environ.clear()
        os.environ.update(environment)
        try:
            result = _run(file)
            said = {"loss": result.loss, "tokens": result.tokens}
        except SftplugError as error:
            said = {"error": str(error), "exit_code": error.exit_code}
        except Exception as error:  # noqa: BLE001 - the test shows it
            said = {"crash": "".join(traceback.format_exception(error))}
        whole = _report(file, rank).with_suffix(".new")
        whole.write_text(json.dumps(said))
        whole.rename(_report(file, rank))
    leave()


def _run(file):
    import sftplug

    return sftplug.train(sftplug.load(file), show=False)
