"""What a command writes is there as a whole or not at all: killed, on a full disk, where nothing can be written."""

import errno
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE

import pytest
from conftest import rows
from run.children import call
from typer.testing import CliRunner

from sftplug import DataError, ModelError, RunError
from sftplug.cli import app
from sftplug.model.loading import base_model_path
from sftplug.recipe import load_recipe
from sftplug.storage.folder import UNFINISHED, atomic_folder

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
WRITES = """
import sys
from pathlib import Path
from sftplug.storage.folder import atomic_folder

with atomic_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("half")
    print("begun", flush=True)
    sys.stdin.read()
"""


@contextmanager
def no_larger_than(size):
    """Let no file grow beyond `size` bytes, as on a disk without room."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def invoke(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_a_folder_is_there_when_all_is_in_it(tmp_path):
    output = tmp_path / "new" / "folder"
    with atomic_folder(output) as folder:
        (folder / "train").mkdir()
        (folder / "train" / "a").write_text("a")
        assert [path.name for path in output.iterdir() if not path.name.startswith(".")] == []
    assert [path.name for path in output.iterdir()] == ["train"]
    refuse = pytest.raises(RunError, match=r"folder is not an empty folder\. Choose another `output`\.")
    with refuse, atomic_folder(output):
        pass


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), RunError, "the disk is full ("),
        (OSError(errno.EACCES, "Permission denied"), RunError, "folder cannot be written: Permission denied"),
        (ModelError("they differ"), ModelError, "they differ"),
        (ZeroDivisionError("of mine"), ZeroDivisionError, "of mine"),
        (KeyboardInterrupt(), KeyboardInterrupt, ""),
    ],
)
def test_nothing_is_left_of_what_failed(tmp_path, error, kind, text):
    with pytest.raises(kind) as caught, atomic_folder(tmp_path / "new" / "folder") as folder:  # noqa: PT012 - all of it
        (folder / "half").write_text("half")
        raise error
    assert text in str(caught.value)
    assert not list(tmp_path.iterdir())
    (tmp_path / "given").mkdir()
    with pytest.raises(kind), atomic_folder(tmp_path / "given"):
        raise error
    assert not list((tmp_path / "given").iterdir())


def test_one_process_writes_a_folder_and_what_a_killed_one_left_is_deleted(tmp_path):
    output = tmp_path / "folder"
    with subprocess.Popen([sys.executable, "-c", WRITES, str(output)], stdin=PIPE, stdout=PIPE, text=True) as other:
        assert other.stdout.readline() == "begun\n"
        refuse = pytest.raises(RunError, match=rf"another run writes to .*folder: process {other.pid} on")
        with refuse, atomic_folder(output):
            pass
        os.kill(other.pid, signal.SIGKILL)
    assert (output / UNFINISHED / "half").is_file()
    with atomic_folder(output) as folder:
        (folder / "all").write_text("all")
    assert [path.name for path in output.iterdir()] == ["all"]


@pytest.mark.slow
def test_a_killed_command_leaves_nothing_that_looks_whole_and_can_be_run_again(recipe_file, lora_run, tmp_path):
    commands = {
        "prepare": ["prepare", recipe_file()],
        "merge": ["merge", lora_run],
    }
    environment = {"SFTPLUG_CACHE": os.environ["SFTPLUG_CACHE"], "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    for name, command in commands.items():
        output, log = tmp_path / name, tmp_path / f"{name}.log"
        killed = {**environment, "KILLED_WRITING_IN": UNFINISHED}
        assert call([*command, "--output", output], log, killed) == -signal.SIGKILL, log.read_text()
        assert (output / UNFINISHED).is_dir()
        assert [path.name for path in output.iterdir() if not path.name.startswith(".")] == []
        assert call([*command, "--output", output], log, environment) == 0, log.read_text()
        whole = contents(output)
        assert len(whole) >= 2
        # `.run` says of which run a merged model is.
        assert {path.name for path in output.iterdir() if path.name.startswith(".")} <= {".run"}
        assert call([*command, "--output", tmp_path / f"{name}-undisturbed"], log, environment) == 0, log.read_text()
        assert contents(tmp_path / f"{name}-undisturbed") == whole


def contents(folder: Path):
    """Return name -> bytes of what a command made, but for what tells when it was made."""
    files = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: content for name, content in files.items() if name.name not in ("state.json", "dataset_info.json")}


def test_files_that_may_not_grow_are_said_where_they_are(recipe_file, tmp_path, monkeypatch):
    file = recipe_file(data=rows(1500))
    monkeypatch.setenv("SFTPLUG_CACHE", str(tmp_path / "cache"))
    with no_larger_than(20_000):
        built = invoke("prepare", file, "--output", tmp_path / "prepared")
    assert isinstance(built.exception, ModelError)
    kept_here = "cache/models: the model that is built on the spot cannot be kept here"
    limit = "no file may be larger than 20,000 bytes here (`ulimit -f`). "
    assert f"{kept_here}: {limit}Raise that limit." in str(built.exception)
    assert not list((tmp_path / "cache" / "models").glob("tiny-*[0-9a-f]"))
    base_model_path(load_recipe(str(file)).recipe)  # it is built now
    with no_larger_than(20_000):
        kept = invoke("prepare", file, "--output", tmp_path / "prepared")
    assert isinstance(kept.exception, DataError)
    assert f"cache/prepared: prepared rows cannot be kept here: {limit}Raise" in str(kept.exception)
    with no_larger_than(20_000):
        train = invoke("train", file)
    # The result could not be kept either: that is tried first.
    assert f"its tokenizer cannot be saved with the result: {limit}Raise that limit." in str(train.exception)
    assert invoke("prepare", file, "--output", tmp_path / "whole").exit_code == 0
    with no_larger_than(20_000):
        result = invoke("prepare", file, "--output", tmp_path / "prepared")
    assert isinstance(result.exception, RunError)
    assert f"prepared cannot be written: {limit}Nothing was kept." in str(result.exception)
    assert not (tmp_path / "prepared").exists()
    with no_larger_than(20_000):
        shown = invoke("preview", file)
    assert isinstance(shown.exception, DataError)
    assert f"cannot be kept here: {limit}Raise that limit." in str(shown.exception)


def test_files_that_cannot_be_written_are_named_and_the_old_ones_stay(recipe_file, tmp_path):
    file, page = recipe_file(data=rows(4)), tmp_path / "page"
    page.write_text("of yesterday")
    for command in (["preview", file, "--html"], ["schema", "--output"]):
        with no_larger_than(5_000):
            result = invoke(*command, page)
        assert isinstance(result.exception, RunError)
        assert str(result.exception) == f"{page} cannot be written: File too large."
        assert page.read_text() == "of yesterday"
        result = invoke(*command, tmp_path)
        assert f"{tmp_path} cannot be written: it is a folder. Name another file." in str(result.exception)
        assert invoke(*command, page).exit_code == 0
        assert page.read_text() != "of yesterday"
        page.write_text("of yesterday")
