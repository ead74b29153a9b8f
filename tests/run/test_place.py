"""Where a run may be: it deletes nothing that no run wrote, and leaves nothing where it is refused."""

import errno
import json
import re
import resource
import shutil
from pathlib import Path

import pytest
from filelock import FileLock
from run.test_begin import leave_unfinished, loaded
from run.test_whole import no_larger_than
from typer.testing import CliRunner

from sftplug import RunError, SftplugError, check
from sftplug.cli import app
from sftplug.model.loading import base_model_path, cache_folder
from sftplug.recipe import load_recipe
from sftplug.run import open_session
from sftplug.run.files import WRITTEN, noting, strangers
from sftplug.storage.disk import no_room
from sftplug.storage.files import atomic_write


def refused(match):
    return pytest.raises(RunError, match=match)


def names(folder: Path):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# --- what is deleted --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place", ["notes.txt", "merged/model.safetensors", "checkpoint-2/notes.txt", "plugins/other.py"]
)
def test_overwrite_deletes_nothing_that_no_run_wrote(recipe_file, tmp_path, place):
    file, out = recipe_file(), tmp_path / "out"
    leave_unfinished(file)
    (out / place).parent.mkdir(exist_ok=True)
    (out / place).write_text("mine")
    before = names(out)
    refuse = refused(rf"out holds what the run did not write: {place}\. Nothing was deleted: move it")
    with refuse, open_session(loaded(file), overwrite=True):
        pass
    assert names(out) == before
    (out / place).unlink()
    if "merged" in place:
        (out / "merged").rmdir()
    with open_session(loaded(file), overwrite=True) as attempt:
        assert attempt.checkpoint is None
        assert not [name for name in names(out) if "checkpoint" in name or "metrics" in name]


def test_many_are_counted(recipe_file, tmp_path):
    leave_unfinished(recipe_file())
    for number in range(8):
        (tmp_path / "out" / f"note{number}").touch()
    before = names(tmp_path / "out")
    with refused("note0, note1, note2, note3, note4 and 3 more"), open_session(loaded(recipe_file()), overwrite=True):
        pass
    assert names(tmp_path / "out") == before


def test_all_that_a_run_of_each_kind_writes_is_known(lora_run, qlora_run, full_run):
    for run in (lora_run, qlora_run, full_run):
        assert strangers(run) == []
    assert "adapter_model.safetensors" in names(lora_run)


def test_what_only_a_library_knows_is_written_down(tmp_path):
    (tmp_path / "notes.txt").touch()
    with noting(tmp_path):
        (tmp_path / "modeling_own.py").touch()
        (tmp_path / "extra").mkdir()
        (tmp_path / "extra" / "vocab.txt").touch()
        (tmp_path / "config.json").touch()
    with noting(tmp_path):
        (tmp_path / "second.bin").touch()
    assert json.loads((tmp_path / WRITTEN).read_text()) == {
        "files": ["extra/vocab.txt", "modeling_own.py", "second.bin"]
    }
    assert strangers(tmp_path) == ["notes.txt"]


def test_a_run_is_begun_again_from_its_own_recipe_and_plugin_files(recipe_file, tmp_path):
    (tmp_path / "mine.py").write_text("import sftplug\n@sftplug.hookimpl\ndef sftplug_run_failed(error): pass\n")
    leave_unfinished(recipe_file(plugins=["./mine.py"]))
    (tmp_path / "mine.py").unlink()
    with open_session(load_recipe(str(tmp_path / "out" / "recipe.yaml")), overwrite=True) as attempt:
        assert (attempt.directory.path / "plugins" / "mine.py").is_file()


def test_nothing_is_deleted_before_it_is_read(recipe_file, tmp_path):
    file, out = recipe_file(model="./out"), tmp_path / "out"
    leave_unfinished(recipe_file("other"))
    for name in ("config.json", "model.safetensors"):
        (out / name).touch()
    with refused(r"the output folder .*out is what `model` reads"), open_session(loaded(file), overwrite=True):
        pass
    (out / "rows.jsonl").write_bytes((tmp_path / "rows.jsonl").read_bytes())
    inside = loaded(recipe_file(), f"data.train.0.path={out / 'rows.jsonl'}")
    with (
        refused(
            r"`data\.train\[0\]\.path` reads .*, which lies in .*out: with `overwrite=True` it would be deleted before"
        ),
        open_session(inside, overwrite=True),
    ):
        pass
    assert (out / "rows.jsonl").is_file()


@pytest.mark.parametrize(
    ("path", "output", "said"),
    [
        ("rows", "rows", "is what `data.train[0].path` reads"),
        ("rows", "rows/run", "would be read as rows"),
        ("rows/*.jsonl", "rows", "would be read as rows"),
        ("rows/**/*.jsonl", "rows/deep/run", "would be read as rows"),
        ("rows/*.jsonl", "rows/run", None),
        ("rows/a.jsonl", "rows/run", None),
    ],
)
def test_no_run_writes_where_its_rows_are_read(recipe_file, tmp_path, path, output, said):
    file = recipe_file()
    (tmp_path / "rows").mkdir()
    shutil.copy(tmp_path / "rows.jsonl", tmp_path / "rows" / "a.jsonl")
    recipe = loaded(file, f"data.train.0.path={tmp_path / path}", f"output={tmp_path / output}")
    if said is None:
        with open_session(recipe):
            return
    with pytest.raises(RunError) as caught, open_session(recipe):
        pass
    assert said in str(caught.value)
    assert names(tmp_path / "rows") == ["a.jsonl"]


# --- what cannot be written -------------------------------------------------------------------------------------------


def symlink(path: Path, to):
    path.symlink_to(to)
    return path


LONG = "x" * 300
PLACES = {
    "a device": (lambda at: Path("/dev/null"), r"null is not a folder"),
    "a file": (lambda at: at / "file", r"file is a file"),
    "below a file": (lambda at: at / "file" / "below", r"file is a file"),
    "a link to itself": (lambda at: symlink(at / "loop", "loop"), r"loop is a link that leads nowhere"),
    "below a link to what is gone": (lambda at: symlink(at / "gone", "nowhere") / "x", r"gone is a link that leads"),
    "a name that is too long": (lambda at: at / "new" / LONG, "File name too long"),
    "no disk": (lambda at: Path("/proc/self/x"), "/proc/self takes no files"),
    "a disk that is read-only": (lambda at: Path("/sys/x"), r"\(/sys\)"),
    "up from what is not there": (lambda at: at / "no" / ".." / ".." / LONG, "File name too long"),
}
WRITERS = {
    "check": ("check", "recipe.yaml", "--output"),
    "train": ("train", "recipe.yaml", "--output"),
    "prepare": ("prepare", "recipe.yaml", "--output"),
    "merge": ("merge", "RUN", "--output"),
    "replay": ("replay", "RUN", "--output"),
    "copy": ("recipes", "copy", "quickstart"),
    "new": ("plugins", "new", "format", "my-format", "--dir"),
}


@pytest.fixture
def place_of(tmp_path):
    """Return a function that makes the place of a name, in a folder with a file; the rest of the folder stays."""

    def make(name):
        make, words = PLACES[name]
        at = tmp_path / "places"
        at.mkdir()
        (at / "file").write_text("mine")
        place = make(at)
        if not Path(*place.parts[:2]).exists():
            pytest.skip(f"there is no {place.parts[1]} here")
        return place, words

    return make


@pytest.mark.parametrize("name", PLACES)
def test_what_cannot_be_written_is_refused_before_anything_is_read(name, place_of, recipe_file, lora_run, tmp_path):
    place, words = place_of(name)
    file, before = recipe_file(data=[{"no": "row"}]), names(tmp_path / "places")
    for command, *arguments in WRITERS.values():
        given = [str({"RUN": lora_run, "recipe.yaml": file}.get(part, part)) for part in arguments]
        result = CliRunner().invoke(app, [command, *given, str(place)])
        assert isinstance(result.exception, SftplugError), (command, result.output, result.exception)
        assert re.search(
            rf"^the output folder .* cannot be written: .*{words}.*\. Choose another", str(result.exception)
        )
        assert names(tmp_path / "places") == before


@pytest.mark.parametrize("name", PLACES)
def test_a_page_that_cannot_be_written_is_refused_before_it_is_drawn(name, place_of, recipe_file, lora_run, tmp_path):
    place, _ = place_of(name)
    before = names(tmp_path / "places")
    for command in (
        ("preview", recipe_file(data=[{"no": "row"}]), "--html"),
        ("report", lora_run, "--html"),
        ("schema", "--output"),
    ):
        result = CliRunner().invoke(app, [*map(str, command), str(place / "page")])
        assert isinstance(result.exception, RunError), (command, result.output, result.exception)
        assert "cannot be written: " in str(result.exception)
        assert names(tmp_path / "places") == before


def test_check_judges_the_place_as_train_does(recipe_file, tmp_path):
    file, taken = recipe_file(), tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.tex").touch()
    (said,) = check(load_recipe(str(file), [f"output={taken}"]))
    assert "is not empty and holds no run: thesis.tex. Choose another `output`." in said
    (said,) = check(load_recipe(str(file), [f"output={tmp_path / 'rows.jsonl'}"]))
    assert "is a file" in said
    assert check(load_recipe(str(file), [f"output={tmp_path / 'new' / 'out'}"])) == []
    assert not (tmp_path / "new").exists()


# --- what is left -----------------------------------------------------------------------------------------------------


def test_a_finished_run_that_is_refused_is_left_as_it_was(recipe_file, lora_run, tmp_path):
    out = Path(shutil.copytree(lora_run, tmp_path / "out"))
    for name in (".lock", ".lock.owner"):
        (out / name).unlink(missing_ok=True)
    before = names(out)
    with refused("holds a finished run"), open_session(loaded(recipe_file())):
        pass
    assert names(out) == before


def test_folders_that_were_made_for_a_run_that_cannot_be_are_unmade(recipe_file, tmp_path, monkeypatch):
    def no_locks(*_):
        raise RunError("no locks here")

    monkeypatch.setattr("sftplug.run.session.locked", no_locks)
    with refused("no locks here"), open_session(loaded(recipe_file(), f"output={tmp_path / 'new' / 'folder'}")):
        pass
    assert not (tmp_path / "new").exists()


def test_measurements_that_have_vanished_are_told(recipe_file, tmp_path):
    file = recipe_file()
    leave_unfinished(file)
    metrics = tmp_path / "out" / "metrics.jsonl"
    kept = metrics.read_bytes()
    metrics.unlink()
    with open_session(loaded(file)) as attempt:
        (note,) = attempt.notes
    assert note.startswith("metrics.jsonl had 1 lines at step 2 and is gone: what they told is missing from now on")
    leave_unfinished(recipe_file("again"), f"output={tmp_path / 'cut'}")
    (tmp_path / "cut" / "metrics.jsonl").write_bytes(kept[:9])
    with open_session(loaded(file, f"output={tmp_path / 'cut'}")) as attempt:
        (note,) = attempt.notes
    assert "metrics.jsonl had 1 lines at step 2 and has lost 1 of them" in note


def test_what_a_killed_build_left_goes_with_the_next_one_unless_it_is_under_way(recipe_file):
    models = cache_folder() / "models"
    models.mkdir(exist_ok=True)
    recipe = load_recipe(str(recipe_file(model={"build": {"type": "tiny", "pretrain_steps": 0, "layers": 1}}))).recipe
    dead, alive, other = ".tiny-0123456789abcdef-xxxx_xxx", ".tiny-fedcba9876543210-yyyyyyyy", ".cache"
    for name in (dead, alive, other):
        (models / name).mkdir()
        (models / name / "model.safetensors").touch()
    with FileLock(models / f"{alive[1:-9]}.lock"):
        base_model_path(recipe)
        assert [(models / name).exists() for name in (dead, alive, other)] == [False, True, True]
    for name in (alive, other):
        shutil.rmtree(models / name)


# --- why there is no room ---------------------------------------------------------------------------------------------

WRITER = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 253376 vs 253268")


@pytest.mark.parametrize(
    ("error", "limit", "reason", "remedy"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            None,
            "the disk is full (",
            "Make room, or name a folder on",
        ),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), None, "the disk is full (", "Make room, or"),
        (
            OSError(errno.EFBIG, "File too large"),
            5000,
            "no file may be larger than 5,000 bytes here",
            "Raise that limit.",
        ),
        (
            OSError(errno.EFBIG, "File too large"),
            None,
            "the file system takes no file that large",
            "Use one that does, or",
        ),
        (ValueError("I/O error: File too large (os error 27)"), 5000, "no file may be larger than 5,000", "Raise"),
        (ValueError("I/O error: No space left on device (os error 28)"), 5000, "the disk is full (", "Make room, or"),
        (WRITER, 5000, "no file may be larger than 5,000 bytes here", "Raise that limit."),
        (WRITER, None, "the disk is full (", "Make room, or"),
    ],
)
def test_a_limit_on_files_is_no_full_disk(tmp_path, error, limit, reason, remedy):
    with no_larger_than(resource.RLIM_INFINITY if limit is None else limit):
        found = no_room(error, tmp_path / "not" / "there")
    assert found.reason.startswith(reason)
    assert found.sentence("SFTPLUG_CACHE").startswith(remedy)


def test_other_errors_are_no_lack_of_room(tmp_path):
    assert no_room(OSError(errno.EACCES, "Permission denied"), tmp_path) is None
    with pytest.raises(RuntimeError) as caught:
        raise RuntimeError("the writer failed") from OSError(errno.ENOSPC, "No space left on device")
    assert no_room(caught.value, tmp_path).reason.startswith("the disk is full (")


def test_errors_that_caused_each_other_are_looked_through_once(tmp_path):
    first, other = ValueError("no number"), RuntimeError("the writer failed")
    first.__cause__, other.__cause__ = other, first
    assert no_room(first, tmp_path) is None


def test_a_file_that_ctrl_c_interrupts_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(number):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        atomic_write(tmp_path / "data.json", "{}")
    assert names(tmp_path) == []
