"""What a run finds in its folder, and what it makes of it; nothing is trained here."""

import errno
import functools
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import pytest
import yaml
from filelock import FileLock

from sftplug import RunDirectory, RunError
from sftplug.recipe import load_recipe
from sftplug.run import checkpoints, open_session
from sftplug.run.checkpoints import Retained
from sftplug.run.failure import explained


def loaded(file, *overrides):
    return load_recipe(str(file), overrides)


def write_checkpoint(run: Path, step: int, *, without: str = "", passing: bool = False) -> Path:
    folder = run / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    for name in ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"):
        if name != without:
            (folder / name).write_text(f"{name} of step {step}")
    checkpoints.write_progress(folder, 0, {"seconds": 1.5, "tokens": 10 * step, "passing": passing})
    return folder


def leave_unfinished(file, *overrides, step=2):
    with pytest.raises(RuntimeError), open_session(loaded(file, *overrides)) as attempt:  # noqa: PT012 - begin is what is left
        attempt.directory.add_metrics({"step": 1, "loss": 2.0})
        checkpoints.mark_complete(write_checkpoint(attempt.directory.path, step))
        attempt.directory.add_metrics({"step": 3, "loss": 1.0})
        raise RuntimeError("the power went")


def forget(run, *options):
    """Let a run's record be that of a version that did not have these options."""
    record = yaml.safe_load((run / "recipe.yaml").read_text())
    origins = json.loads((run / "origins.json").read_text())
    for option in options:
        *parents, last = option.split(".")
        del functools.reduce(dict.__getitem__, parents, record)[last]
        origins = {path: origin for path, origin in origins.items() if not path.startswith(option)}
    (run / "recipe.yaml").write_text(yaml.safe_dump(record))
    (run / "origins.json").write_text(json.dumps(origins))


def test_a_run_goes_on_with_the_defaults_of_options_that_came_later(recipe_file, tmp_path):
    """Of the core, and of a component; what the recipe itself says is another recipe still."""
    file = recipe_file(adapter="lora")
    leave_unfinished(file)
    forget(tmp_path / "out", "loss", "adapter.dora")
    for named, said in (("loss=focal", "loss.type: (none) -> 'focal'"), ("adapter.dora=true", "dora: (none) -> True")):
        with pytest.raises(RunError, match=re.escape(said)), open_session(loaded(file, named)):
            pass
    with open_session(loaded(file)) as session:
        assert session.checkpoint.step == 2
        later = "the version that began this run did not have it; it goes on with the default"
        assert f"loss.type: {later}, 'cross_entropy'" in session.notes
        assert f"adapter.dora: {later}, False" in session.notes
    assert yaml.safe_load((tmp_path / "out" / "recipe.yaml").read_text())["loss"]["type"] == "cross_entropy"


@pytest.mark.parametrize("missing", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"])
def test_a_checkpoint_that_lacks_what_a_run_needs_is_never_sealed(tmp_path, missing):
    folder = write_checkpoint(tmp_path, 4, without=missing)
    with pytest.raises(RunError, match=r"checkpoint-4 lacks the .*: no run could be resumed from it"):
        checkpoints.mark_complete(folder)
    assert checkpoints.integrity_error(folder) == "was not finished"


def test_a_seal_notices_what_was_lost_or_changed(tmp_path):
    folder = write_checkpoint(tmp_path, 4)
    checkpoints.mark_complete(folder)
    assert checkpoints.integrity_error(folder) is None
    (folder / "optimizer.pt").write_text("optimizer.pt of step 5")
    assert checkpoints.integrity_error(folder) == "has a optimizer.pt that is not what was written"
    (folder / "optimizer.pt").unlink()
    assert checkpoints.integrity_error(folder) == "has lost optimizer.pt"
    (folder / "sealed.json").write_text("{")
    assert "has a seal that cannot be read" in checkpoints.integrity_error(folder)


def test_old_checkpoints_go_but_the_newest_and_the_best(tmp_path):
    for step in (2, 4, 6, 8):
        checkpoints.mark_complete(write_checkpoint(tmp_path, step))
    for limit, best, left in ((0, None, [8, 6, 4, 2]), (3, 4, [8, 6, 4]), (2, 4, [8, 4]), (1, 4, [8, 4]), (1, 8, [8])):
        checkpoints.rotate(tmp_path, Retained(limit, asked_for=True), str(tmp_path / f"checkpoint-{best}"))
        assert [checkpoint.step for checkpoint in checkpoints.whole(tmp_path)] == left


def test_what_a_run_kept_that_began_when_all_were_kept_stays(tmp_path):
    for step in (2, 4):
        checkpoints.mark_complete(write_checkpoint(tmp_path, step))
    for step in (6, 8):
        checkpoints.mark_complete(write_checkpoint(tmp_path, step, passing=True))
    checkpoints.rotate(tmp_path, Retained(), None)
    assert [checkpoint.step for checkpoint in checkpoints.whole(tmp_path)] == [8, 4, 2]


def test_how_many_are_kept_is_told():
    told = {limit: str(Retained(limit, asked_for=True)) for limit in (None, 0, 1, 3)}
    assert told[None] == told[0] == "all of them are kept"
    assert told[1] == str(Retained()) == "the last and the best one are kept"
    assert told[3] == "the last 3 are kept, the best one among them"


def test_an_unfinished_run_goes_on_where_its_checkpoint_is(recipe_file, tmp_path):
    file = recipe_file()
    leave_unfinished(file)
    directory = RunDirectory.open(tmp_path / "out")
    assert directory.state().state == "failed"
    assert directory.state().reason == "RuntimeError: the power went"
    write_checkpoint(directory.path, 4)
    with (directory.path / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 4, "lo')  # a line that was not finished
    with open_session(loaded(file), resume=True) as attempt:
        assert attempt.checkpoint.step == 2
        assert attempt.state.tokens == 20
        assert list(attempt.notes) == ["checkpoint-4 was not finished; it is not used"]
        assert not (directory.path / "checkpoint-4").exists()
        assert list(directory.metrics()) == [{"step": 1, "loss": 2.0}]
        assert directory.state().state == "running"


def test_another_recipe_is_refused_key_by_key_unless_the_run_is_deleted(recipe_file, tmp_path):
    file = recipe_file()
    leave_unfinished(file)
    other = loaded(file, "train.learning_rate=1e-3", "adapter=lora")
    with pytest.raises(RunError) as caught, open_session(other):
        pass
    text = str(caught.value)
    assert "holds an unfinished run of another recipe:\n" in text
    assert "  adapter.type: 'full' -> 'lora'\n" in text
    assert "  adapter.r: (none) -> 16\n" in text
    assert "  train.learning_rate: 0.005 -> 0.001\n" in text
    assert "choose another `output`, or `overwrite=True` to delete it." in text
    with open_session(other, overwrite=True) as attempt:
        assert attempt.checkpoint is None
        assert not list((tmp_path / "out").glob("checkpoint-*"))


def test_a_run_that_failed_before_its_first_checkpoint_does_not_stand_in_the_way_of_a_better_recipe(recipe_file):
    file = recipe_file()
    with pytest.raises(RuntimeError), open_session(loaded(file)):
        raise RuntimeError("bad rows")
    with open_session(loaded(file, "train.learning_rate=1e-3")) as attempt:
        assert attempt.directory.recipe()["train"]["learning_rate"] == 1e-3


def test_weights_that_were_saved_without_an_optimizer_are_not_deleted(recipe_file, tmp_path):
    file = recipe_file(train={"save_only_model": True})
    with pytest.raises(RuntimeError), open_session(loaded(file)):
        raise RuntimeError("the power went")
    folder = write_checkpoint(tmp_path / "out", 4, without="optimizer.pt")
    refuse = pytest.raises(RunError, match=r"saved weights only \(`train\.save_only_model`\): checkpoint-4\. It cannot")
    with refuse, open_session(loaded(file)):
        pass
    assert folder.is_dir()


def test_rows_that_have_changed_since_are_named(recipe_file, tmp_path, run):
    file = recipe_file(adapter="lora")
    run(file, "train.max_steps=1")
    directory = RunDirectory.open(tmp_path / "out")
    directory.write("run.json", {"format": 1, "state": "running", "attempts": []})
    checkpoints.mark_complete(write_checkpoint(directory.path, 9))
    with (tmp_path / "rows.jsonl").open("a") as stream:
        stream.write("\n")
    refuse = pytest.raises(RunError, match=r"have changed since it began:\n  data\.train\[0\]: .*rows\.jsonl")
    with refuse, open_session(loaded(file, "train.max_steps=1")):
        pass


def test_folders_that_cannot_be_used_are_refused_before_anything_is_loaded(recipe_file, tmp_path):
    (tmp_path / "taken").write_text("a file")
    refuse = pytest.raises(RunError, match=r"the output folder .*taken cannot be written: .*taken is a file\. Choose")
    with refuse, open_session(loaded(recipe_file(), f"output={tmp_path / 'taken'}")):
        pass
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with (
            pytest.raises(RunError, match=r"home is not empty and holds no run: thesis\.tex\. Choose"),
            open_session(loaded(recipe_file(), f"output={tmp_path / 'home'}"), overwrite=overwrite),
        ):
            pass
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["thesis.tex"]
    refuse = pytest.raises(RunError, match=r"there is no run to resume in .*Leave out `resume=True` to begin one")
    with refuse, open_session(loaded(recipe_file(), f"output={tmp_path / 'new' / 'folder'}"), resume=True):
        pass
    assert not (tmp_path / "new").exists()


def test_two_runs_on_one_folder_and_the_lock_of_a_dead_one(recipe_file, tmp_path):
    file = recipe_file()
    code = (
        "import sys\nfrom sftplug.recipe import load_recipe\nfrom sftplug.run import open_session\n"
        f"with open_session(load_recipe({str(file)!r})):\n    print('begun', flush=True)\n    sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=PIPE, stdout=PIPE, text=True) as other:
        assert other.stdout.readline() == "begun\n"
        refuse = pytest.raises(RunError, match=rf"another run writes to .*out: process {other.pid} on .*, since 20")
        with refuse, open_session(loaded(file)):
            pass
        os.kill(other.pid, signal.SIGKILL)
    with open_session(loaded(file)) as attempt:
        assert len(attempt.state.attempts) == 2
    assert not (tmp_path / "out" / ".lock.owner").exists()


def test_a_run_on_another_machine(recipe_file, tmp_path):
    """Its processes cannot be looked at: while the lock is held it is named, when it is gone it is mentioned."""
    file, note = recipe_file(), {"pid": 7, "host": "node-7", "since": "2026-01-02 03:04:05"}
    leave_unfinished(file)
    owner = tmp_path / "out" / ".lock.owner"
    with FileLock(tmp_path / "out" / ".lock"):
        owner.write_text(json.dumps(note))
        with pytest.raises(RunError) as caught, open_session(loaded(file)):
            pass
        assert owner.exists()
    text = str(caught.value)
    assert "out: process 7 on node-7, since 2026-01-02 03:04:05. Choose another `output`, or wait" in text
    assert "If that process is gone, its lock goes with it; if the machine itself went down, once the file" in text
    assert f"or when you delete {tmp_path / 'out' / '.lock'} after making sure that nothing runs there" in text
    with open_session(loaded(file)) as attempt:
        assert attempt.checkpoint.step == 2
        assert attempt.notes[0].startswith("the last run here was process 7 on node-7, since 2026-01-02 03:04:05, and")
        assert "on a file system that carries no locks across machines, make sure that it has ended" in attempt.notes[0]
    assert not owner.exists()


@pytest.mark.filterwarnings("ignore:flock not supported")
def test_a_file_system_without_locks_is_refused(recipe_file, monkeypatch):
    import fcntl

    def flock(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    refuse = pytest.raises(
        RunError, match=r"out cannot be locked: its file system has no locks\. Two runs could not be"
    )
    with refuse, open_session(loaded(recipe_file())):
        pass


def test_the_record_says_where_every_value_came_from_and_keeps_no_secret(recipe_file, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import sftplug\n@sftplug.hookimpl\ndef sftplug_run_failed(error): pass\n", encoding="utf-8"
    )
    file = recipe_file(plugins=["./mine.py"], adapter={"type": "lora", "r": 4})
    with open_session(loaded(file, "train.lr_scheduler_kwargs={api_key: hf_secret}", "adapter.dropout=0.1")) as attempt:
        directory = attempt.directory
    origins = directory.origins()
    assert origins["adapter.r"].startswith("recipe.yaml:")
    assert origins["adapter.dropout"] == "command line"
    assert origins["spans.boundary"] == "default"
    assert origins["data.train[0].source.path"].startswith("recipe.yaml:")
    assert directory.recipe()["plugins"] == ["./plugins/mine.py"]
    assert (directory.path / "plugins" / "mine.py").read_text() == (tmp_path / "mine.py").read_text()
    assert "mine" in directory.load_recipe().active
    texts = [path.read_text(errors="replace") for path in directory.path.rglob("*") if path.is_file()]
    assert len(texts) >= 6
    assert not any("hf_secret" in text for text in texts)
    assert {"python", "system", "libraries", "accelerators"} <= directory.environment().keys()
    assert os.uname().nodename not in json.dumps(directory.environment())


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 253376 vs 253268"),
        ValueError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_known_whatever_the_library_makes_of_it(tmp_path, error):
    checkpoints.mark_complete(write_checkpoint(tmp_path, 2))
    text = str(explained(error, "checkpoint-4 cannot be written", tmp_path))
    assert text.startswith("checkpoint-4 cannot be written: the disk is full (")
    assert "Nothing up to step 2 is lost" in text
