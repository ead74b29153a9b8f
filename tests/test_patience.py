"""What hangs is told from what is slow, by what it uses and says and not by the clock."""

import faulthandler
import json
import sys
import threading
import time
from pathlib import Path

import patience
import pytest
import several
from patience import Hung, Watch, finish
from run.children import CONTEXT

WAITS = "import threading\n\ndef for_ever():\n    threading.Event().wait()\n\nfor_ever()"


def test_a_command_that_waits_for_ever_is_ended_with_its_stack(monkeypatch):
    monkeypatch.setattr(patience, "IDLE", 1.0)
    with pytest.raises(Hung, match=r"hangs: no processor time was used for \d+ s") as caught:
        patience.run([sys.executable, "-c", WAITS])
    assert "in for_ever" in str(caught.value)


def test_one_that_runs_in_circles_is_ended_with_its_stack(monkeypatch):
    monkeypatch.setattr(patience, "ENDLESS", 0.5)
    with pytest.raises(Hung, match=r"s of processor time were used without coming any further") as caught:
        patience.run([sys.executable, "-c", "def in_circles():\n    while True: pass\nin_circles()"])
    assert "in in_circles" in str(caught.value)


def test_a_command_that_ends_is_as_subprocess_runs_it():
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    done = patience.run([sys.executable, "-c", code])
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")


def test_what_is_slow_is_waited_for(monkeypatch):
    """Hours by the clock: what counts is that something is used, or said, now and then."""
    clock = {"now": 0.0, "used": 0.0, "said": 0}
    monkeypatch.setattr(patience.time, "monotonic", lambda: clock["now"])
    monkeypatch.setattr(patience, "used", lambda pids: clock["used"])
    watch = Watch([1], lambda: clock["said"])
    for _ in range(100):  # two seconds of work in a minute and a half
        clock["now"] += 90
        clock["used"] += 2
        clock["said"] += clock["used"] % 1000 == 0
        assert watch.fault() is None
    for _ in range(100):  # much work, with something to show for it
        clock["now"] += 90
        clock["used"] += patience.ENDLESS / 2
        clock["said"] += 1
        assert watch.fault() is None
    clock["now"] += patience.IDLE + 1
    clock["used"] += patience.NEXT_TO_NONE / 2
    assert watch.fault() == "no processor time was used for 181 s"


def test_processes_that_wait_for_nobody_are_ended(monkeypatch):
    processes = [CONTEXT.Process(target=_sleep, args=(hours,)) for hours in (0, 10_000)]
    for process in processes:
        process.start()
    processes[0].join()
    monkeypatch.setattr(patience, "IDLE", 1.0)
    with pytest.raises(Hung, match="all that was said"):
        finish(processes, said=lambda: "all that was said")
    assert processes[0].exitcode == 0
    assert processes[1].exitcode < 0


def _sleep(hours):
    time.sleep(3600 * hours)


def test_a_job_that_hangs_is_named_with_rank_and_stack_and_those_before_it_count(monkeypatch, tmp_path):
    monkeypatch.setattr(several, "_worker", _worker)
    monkeypatch.setattr(several, "finish", _finish_soon)
    said = several.train_all([tmp_path / f"{name}.yaml" for name in ("first", "second", "third")], 0)
    assert said["first"] == ["told by 0", "told by 1"]
    for name in ("second", "third"):
        with pytest.raises(pytest.fail.Exception, match=f"{name} did not come to its end: the processes hang") as why:
            said[name]
        assert "rank 1 ended with exit code -6, in second:\n" in str(why.value)
        assert "in _worker" in str(why.value)


def _finish_soon(processes, progress):
    """Be impatient once the first job is done."""
    while progress() != [1, 1]:
        time.sleep(0.01)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patience, "IDLE", 1.0)
        finish(processes, progress)


def _worker(rank, port, files):
    """Tell of the first job; the second one never ends."""
    first, *_ = files = list(map(Path, files))
    faulthandler.enable(several._stacks(files, rank).open("w"))
    first.with_suffix(f".{rank}.json").write_text(json.dumps(f"told by {rank}"))
    threading.Event().wait()
