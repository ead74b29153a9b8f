"""A second run tokenizes nothing; whatever changes what is prepared, prepares anew."""

import json
import multiprocessing
import os
import signal
import tempfile
from pathlib import Path
from types import ModuleType

import pytest
from conftest import rows, write_rows
from patience import finish

from sftplug import DataError
from sftplug.data import store as stores
from sftplug.data.prepare import prepare
from sftplug.data.store import Store
from sftplug.model.loading import base_model_path, cache_folder, load_tokenizer
from sftplug.plugin.manager import Plugin
from sftplug.recipe import load_recipe
from sftplug.storage.contents import CONTENTS
from sftplug.storage.kept import _looked_at

PLUGIN = """from sftplug import Masking, hookimpl


class Mine(Masking):
    type: str = "mine"

    def weights(self, tokens):
        return tokens.trainable  # {comment}


@hookimpl
def sftplug_maskings():
    return [Mine]
"""


@pytest.fixture
def kept(tmp_path):
    """Return a function that prepares a recipe with a store of the test's own."""

    def go(file, *overrides):
        loaded = load_recipe(str(file), overrides)
        store = Store(tmp_path / "store", loaded.provenance())
        return prepare(loaded.recipe, load_tokenizer(loaded.recipe), store=store)

    return go


def test_a_second_run_tokenizes_nothing_and_has_the_same_rows_and_ledger(recipe_file, kept, monkeypatch):
    file = recipe_file(data=rows(30))
    options = ["data.eval_fraction=0.2", "data.packing=rows", "data.max_length=128"]
    first = kept(file, *options)
    assert not first.ledger.reused
    monkeypatch.setattr("sftplug.data.prepare.encoder", None)  # whoever tokenizes, fails
    monkeypatch.setattr("sftplug.data.prepare.SplitRows", None)
    second = kept(file, *options)
    assert second.ledger.reused
    assert second.train.to_dict() == first.train.to_dict()
    assert second.eval.to_dict() == first.eval.to_dict()
    assert second.order == first.order
    assert second.ledger.to_dict() == first.ledger.to_dict()
    assert second.ledger.stop_ids == first.ledger.stop_ids


@pytest.mark.parametrize(
    "change",
    [
        "data.max_length=200",
        "masking=last_assistant",
        "chat_template=plain",
        "spans.on_divergence=warn",
        "data.packing=rows",
        "train.seed=7",
        "data.train.first=20",
    ],
)
def test_another_option_prepares_anew(recipe_file, kept, change):
    file = recipe_file()
    kept(file)
    assert kept(file).ledger.reused
    assert not kept(file, change).ledger.reused


def test_what_does_not_matter_to_the_rows_does_not_prepare_anew(recipe_file, kept):
    file = recipe_file()
    kept(file)
    assert kept(file, "train.learning_rate=0.1", "adapter=lora", "quantization=bf16").ledger.reused


def test_other_rows_another_tokenizer_and_one_line_of_a_plugin_prepare_anew(recipe_file, kept, tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN.format(comment="one"))
    file = recipe_file(plugins=["./mine.py"], masking="mine")
    kept(file)
    assert kept(file).ledger.reused
    (tmp_path / "mine.py").write_text(PLUGIN.format(comment="two"))
    assert not kept(file).ledger.reused
    write_rows(tmp_path / "rows.jsonl", rows(24, seed=1))
    assert not kept(file).ledger.reused
    assert kept(file).ledger.reused
    assert not kept(file, "model.build.vocab_size=600").ledger.reused


OTHER_CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
OTHER_CHATML += "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


def test_a_template_file_and_the_template_of_the_tokenizer_count(recipe_file, kept, tmp_path):
    (tmp_path / "mine.jinja").write_text(OTHER_CHATML)
    file = recipe_file(chat_template={"file": "./mine.jinja"})
    kept(file)
    assert kept(file).ledger.reused
    (tmp_path / "mine.jinja").write_text(OTHER_CHATML.replace("{{ m.role }}", "{{ m.role | lower }}"))
    assert not kept(file).ledger.reused
    # Its arguments count too; `x` is one that it reads.
    (tmp_path / "mine.jinja").write_text(OTHER_CHATML + "{{ x }}")
    kept(file)
    assert not kept(file, "data.train.template_kwargs={x: ''}").ledger.reused


def test_a_file_that_a_component_of_a_plugin_reads_counts(recipe_file, kept, tmp_path):
    source = PLUGIN.replace('"mine"\n', '"mine"\n    words: InputPath\n    more: InputPath | None = None\n')
    (tmp_path / "mine.py").write_text(source.replace("import Masking", "import InputPath, Masking"))
    (tmp_path / "words.txt").write_text("one")
    (tmp_path / "more").mkdir()
    file = recipe_file(plugins=["./mine.py"], masking={"type": "mine", "words": "./words.txt", "more": "./more"})
    kept(file)
    assert kept(file).ledger.reused
    (tmp_path / "words.txt").write_text("two")
    assert not kept(file).ledger.reused
    (tmp_path / "more" / "data").write_text("new")
    assert not kept(file).ledger.reused
    assert kept(file).ledger.reused


@pytest.mark.parametrize("changed", ["pkg/__init__.py", "pkg/deep/helper.py", "pkg/data/template.jinja"])
def test_every_file_of_a_plugin_s_package_counts(tmp_path, changed):
    for name in ("pkg/__init__.py", "pkg/deep/__init__.py", "pkg/deep/helper.py", "pkg/data/template.jinja"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("# one")
    module = ModuleType("pkg.deep.helper")
    module.__file__ = str(tmp_path / "pkg/deep/helper.py")

    def loaded_now():
        return Plugin("mine", module, "pkg", "1.0").sha256

    before = loaded_now()
    (tmp_path / "pkg" / "__pycache__").mkdir()
    (tmp_path / "pkg" / "__pycache__" / "x.pyc").write_bytes(b"compiled")
    assert loaded_now() == before
    (tmp_path / changed).write_text("# two")
    assert loaded_now() != before


def test_the_version_of_a_plugin_counts(recipe_file):
    loaded = load_recipe(str(recipe_file()))
    tokenizer = load_tokenizer(loaded.recipe)
    code = loaded.provenance()
    other = [{**code[0], "version": "9.9"}, *code[1:]]
    assert stores.key_of(loaded.recipe, tokenizer, frozenset(), code) != stores.key_of(
        loaded.recipe, tokenizer, frozenset(), other
    )


def test_the_code_of_sftplug_itself_counts(recipe_file, kept, monkeypatch):
    file = recipe_file()
    kept(file)
    monkeypatch.setattr(stores, "own_code", lambda: "other")
    assert not kept(file).ledger.reused


def test_a_template_that_prints_the_date_counts_the_day(recipe_file, kept, tmp_path, monkeypatch):
    chatml = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
    prompt = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    (tmp_path / "dated.jinja").write_text("{{ strftime_now('%d %b %Y') }}\n" + chatml + prompt)
    file = recipe_file(chat_template={"file": "./dated.jinja"})
    kept(file)
    assert kept(file).ledger.reused

    class Tomorrow:
        class date:
            @staticmethod
            def today():
                return "tomorrow"

    monkeypatch.setattr(stores, "datetime", Tomorrow)
    assert not kept(file).ledger.reused


def test_rows_that_are_refused_are_not_kept(recipe_file, kept):
    file = recipe_file(data=[{"messages": []}])
    for _ in range(2):
        with pytest.raises(Exception, match="holds no message"):
            kept(file)


def test_a_source_that_cannot_tell_is_read_every_time(recipe_file, kept, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from sftplug import DatasetSource, Row, hookimpl\n\n\nclass Mine(DatasetSource):\n    type: str = 'mine'\n"
        "    rows_wanted: int = 2\n\n    def label(self):\n        return 'mine'\n\n    def rows(self):\n"
        "        for n in range(self.rows_wanted):\n"
        "            yield Row({'instruction': f'Say {n}.', 'output': str(n)}, f'mine[{n}]')\n\n\n"
        "@hookimpl\ndef sftplug_dataset_sources():\n    return [Mine]\n"
    )
    file = recipe_file(plugins=["./mine.py"])
    options = ["data.train=[{source: mine, rows_wanted: 3, format: alpaca}]"]
    for _ in range(2):
        ready = kept(file, *options)
        assert not ready.ledger.reused
        assert len(ready.train) == 3


def _get(folder, started, waiting):
    """Get rows as one of several processes; who makes them does not end before all others wait for it."""

    def make(place):
        with started.get_lock():
            started.value += 1
        for _ in range(2):
            waiting.acquire()
        (place / "rows").write_text("rows")

    place, _ = Store(folder, []).get("0" * 64, make, waiting.release)
    assert (place / "rows").read_text() == "rows"


def test_of_several_processes_one_prepares_and_the_others_wait(tmp_path):
    context = multiprocessing.get_context("fork")
    started, waiting = context.Value("i", 0), context.Semaphore(0)
    workers = [context.Process(target=_get, args=(tmp_path, started, waiting)) for _ in range(3)]
    for worker in workers:
        worker.start()
    finish(workers)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert started.value == 1


def test_a_run_that_ends_midway_leaves_nothing_behind(tmp_path):
    def make(place):
        (place / "half").write_text("x")
        raise KeyboardInterrupt

    store = Store(tmp_path / "store", [])
    with pytest.raises(KeyboardInterrupt):
        store.get("0" * 64, make)
    assert [path.name for path in store.folder.iterdir() if path.is_dir()] == []


def _die(folder):
    def make(place):
        (place / "half").write_text("x")
        os.kill(os.getpid(), signal.SIGKILL)

    Store(folder, []).get("0" * 64, make)


def test_a_process_that_is_killed_while_it_prepares_blocks_nobody_and_leaves_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    victim = context.Process(target=_die, args=(tmp_path,))
    victim.start()
    victim.join()
    assert victim.exitcode == -signal.SIGKILL
    place, cached = Store(tmp_path, []).get("0" * 64, lambda place: (place / "rows").write_text("rows"))
    assert not cached
    assert sorted(path.name for path in place.iterdir()) == [CONTENTS, "rows"]
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [place.name]


def flip(file):
    """Turn over one bit, as a disk does that nobody has been told of; size and time stay."""
    before, data = file.stat(), bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("missing", "has lost train.arrow"),
        ("shorter", "has a train.arrow that is not what was written"),
        ("one bit of the rows", "has a train.arrow that is not what was written"),
        ("one bit of the ledger", "has a ledger.json that is not what was written"),
        ("no list of contents", "has no contents.json"),
        ("half a list of contents", "has a contents.json that cannot be read"),
        ("another list", "has a contents.json that cannot be read"),
    ],
)
def test_a_damaged_folder_is_prepared_anew_and_that_is_said(recipe_file, kept, caplog, damage, said):
    file = recipe_file()
    first = kept(file).train.to_dict()  # read before the file changes under it
    (contents,) = (file.parent / "store").glob(f"*/{CONTENTS}")
    rows_file = contents.with_name("train.arrow")
    if damage == "missing":
        rows_file.unlink()
    elif damage == "shorter":
        rows_file.write_bytes(rows_file.read_bytes()[:-100])
    elif damage.startswith("one bit"):
        flip(rows_file if damage.endswith("rows") else contents.with_name("ledger.json"))
    elif damage == "no list of contents":
        contents.unlink()
    else:
        contents.write_text(contents.read_text()[:9] if damage.startswith("half") else '{"files": [1]}')
    again = kept(file)
    assert not again.ledger.reused
    (warning,) = caplog.messages
    assert warning.startswith(f"{contents.parent} {said}")
    assert warning.endswith("; it is dropped and made again")
    assert again.train.to_dict() == first
    assert kept(file).ledger.reused
    assert len(caplog.messages) == 1


def test_a_flipped_bit_in_a_built_model_is_noticed(recipe_file, command, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("SFTPLUG_CACHE", str(tmp_path / "cache"))
    file = recipe_file()
    model = Path(base_model_path(load_recipe(str(file)).recipe))
    right = (model / "model.safetensors").read_bytes()
    flip(model / "model.safetensors")
    _looked_at.clear()  # another process
    result = command("check", file)
    assert result.exit_code == 0, result.output
    assert caplog.messages == [
        f"{model} has a model.safetensors that is not what was written; it is dropped and made again"
    ]
    assert (model / "model.safetensors").read_bytes() == right
    assert command("check", file).exit_code == 0
    assert len(caplog.messages) == 1


GROWS = """from typing import Literal

from sftplug import Masking, hookimpl


class Grows(Masking):
    type: Literal["grows"] = "grows"
    file: str
    mode: str

    def weights(self, tokens):
        import os
        import time
        from pathlib import Path

        file = Path(self.file)
        before = file.stat()
        text = file.read_text()
        if self.mode == "appended":
            file.write_text(text + text)
        elif self.mode == "put back":
            file.write_text(text + text)
            file.write_text(text)
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        elif self.mode == "replaced":
            file.with_suffix(".new").write_text(text)
            file.with_suffix(".new").replace(file)
        return tokens.trainable


@hookimpl
def sftplug_maskings():
    return [Grows]
"""


@pytest.mark.parametrize("mode", ["appended", "put back", "replaced"])
def test_rows_that_change_while_they_are_read_are_not_kept(recipe_file, command, tmp_path, monkeypatch, mode):
    monkeypatch.setenv("SFTPLUG_CACHE", str(tmp_path / "cache"))
    (tmp_path / "grows.py").write_text(GROWS)
    changing = {"type": "grows", "file": str(tmp_path / "rows.jsonl"), "mode": mode}
    file = recipe_file("changing", plugins=["./grows.py"], masking=changing)
    before = (tmp_path / "rows.jsonl").read_text()
    result = command("prepare", file, "--output", tmp_path / "prepared")
    assert result.exit_code != 0
    assert f"{tmp_path / 'rows.jsonl'}: changed while the rows were read" in str(result.exception)
    assert not (tmp_path / "prepared").exists()
    (tmp_path / "rows.jsonl").write_text(before)
    result = command("prepare", file, "masking.mode=none", "--output", tmp_path / "prepared")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "prepared" / "ledger.json").read_text())["splits"]["train"][0]["read"] == 24


def test_rows_of_a_source_that_knows_only_its_content_are_compared_by_it(recipe_file, kept, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from pathlib import Path\nfrom sftplug import DatasetSource, Row, hookimpl\n\n\n"
        "class Mine(DatasetSource):\n    type: str = 'mine'\n    file: str\n\n    def label(self):\n"
        "        return 'mine'\n\n    def fingerprint(self):\n        return Path(self.file).read_text()\n\n"
        "    def rows(self):\n        for n in range(2):\n"
        "            yield Row({'instruction': f'Say {n}.', 'output': str(n)}, f'mine[{n}]')\n"
        "        Path(self.file).write_text('another')\n\n\n"
        "@hookimpl\ndef sftplug_dataset_sources():\n    return [Mine]\n"
    )
    (tmp_path / "content").write_text("one")
    file = recipe_file(plugins=["./mine.py"])
    options = [f"data.train=[{{source: mine, file: {tmp_path / 'content'}, format: alpaca}}]"]
    with pytest.raises(DataError, match=r"^mine: changed while the rows were read"):
        kept(file, *options)
    assert len(kept(file, *options).train) == 2  # it says 'another' from now on


def _as_another_user(folder, key, queue):
    if os.getuid() == 0:
        os.setuid(65534)
    try:
        queue.put(Store(folder, []).get(key, lambda place: None)[1])
    except DataError as error:
        queue.put(str(error))


def ask_as_another_user(folder, key):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    worker = context.Process(target=_as_another_user, args=(folder, key, queue))
    worker.start()
    worker.join()
    return queue.get()


def test_a_folder_of_another_user_can_be_read_and_says_so_where_it_cannot_be_written():
    # Not below `tmp_path`, which pytest opens to its own user alone.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Store(folder, []).get("0" * 64, lambda place: (place / "rows").write_text("rows"))
        folder.chmod(0o555)
        assert ask_as_another_user(folder, "0" * 64) is True
        said = ask_as_another_user(folder, "1" * 64)
        folder.chmod(0o755)
    assert f"{folder}: prepared rows cannot be kept here: " in said
    assert said.endswith("Name a folder of your own in the environment variable SFTPLUG_CACHE.")


def test_a_cache_that_cannot_be_is_told_with_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        DataError, match=r"file/prepared: prepared rows cannot be kept here: .*Not a directory.*SFTPLUG_CACHE"
    ):
        Store(tmp_path / "file" / "prepared", []).get("0" * 64, lambda place: None)
    monkeypatch.setenv("SFTPLUG_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"file/models: built models cannot be kept here: .*SFTPLUG_CACHE"):
        base_model_path(load_recipe("quickstart_tiny").recipe)
    monkeypatch.setenv("SFTPLUG_CACHE", "")  # not the working folder
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "sftplug"


def test_a_file_that_may_not_be_read_is_not_blamed_on_the_store(tmp_path):
    def make(place):
        raise PermissionError(13, "Permission denied", "/elsewhere/rows.jsonl")

    with pytest.raises(PermissionError, match=r"rows\.jsonl"):
        Store(tmp_path, []).get("0" * 64, make)


def test_who_waits_for_another_process_is_told(tmp_path):
    context = multiprocessing.get_context("fork")
    making, told, waited = context.Event(), [], context.Semaphore(0)

    def make(place):
        making.set()
        waited.acquire()

    def wait():
        told.append("waiting")
        waited.release()

    worker = context.Process(target=Store(tmp_path, []).get, args=("0" * 64, make))
    worker.start()
    making.wait()
    _, cached = Store(tmp_path, []).get("0" * 64, lambda place: None, wait)
    finish([worker])
    assert (cached, told) == (True, ["waiting"])


def test_rows_that_nobody_used_for_long_are_forgotten(tmp_path, monkeypatch):
    store = Store(tmp_path / "store", [])
    store.get("0" * 64, lambda place: (place / "x").touch())
    monkeypatch.setattr(stores, "KEPT_DAYS", -1)
    store.get("1" * 64, lambda place: (place / "x").touch())
    assert [path.name for path in store.folder.iterdir() if path.is_dir()] == ["1" * 64]


def test_the_ledger_survives_json(recipe_file, prepared):
    from sftplug.types.ledger import Ledger

    ledger = prepared(recipe_file(data=rows(20)), "data.packing=rows", "data.train.epochs=1.5").ledger
    again = Ledger.from_state(json.loads(json.dumps(ledger.to_state())))
    assert again == ledger
