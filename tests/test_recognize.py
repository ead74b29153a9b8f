"""A recipe may leave its format out: the first rows say it, or an error says what to write."""

import json
import re
import sys
from typing import Literal

import pytest
import yaml
from conftest import TINY, rows, train_file, write_rows
from run.test_held import killed_after

import sftplug
from sftplug import Conversation, DatasetFormat, Message, PluginError, RecipeError, Recognized, Row, RunDirectory
from sftplug.recipe.recognize import LOOKED_AT

SAID = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hello."}]
TURNS = [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Hello."}]

THEIRS = {
    "messages": ([{"messages": SAID}], {}, "column messages"),
    "messages elsewhere": ([{"talk": SAID, "n": 3}], {"type": "messages", "column": "talk"}, "column talk"),
    "messages as sharegpt calls them": ([{"conversations": SAID}], {"type": "messages", "column": "conversations"}, ""),
    "sharegpt": ([{"conversations": TURNS}], {}, "column conversations"),
    "sharegpt elsewhere": ([{"items": TURNS}], {"type": "sharegpt", "column": "items"}, "column items"),
    "alpaca": ([{"instruction": "Hi?", "input": "", "output": "Hello."}], {}, "columns instruction, input, output"),
    "alpaca as Dolly has it": (
        [{"instruction": "Hi?", "context": "", "response": "Hello.", "category": "open_qa"}],
        {"type": "alpaca", "input": "context", "output": "response"},
        "columns instruction, context, response",
    ),
    "prompt_completion": ([{"prompt": SAID[:1], "completion": SAID[1:]}], {}, "columns prompt and completion"),
    "text": ([{"text": "Ferns have spores.", "url": "a"}], {}, "column text"),
    "columns": (
        [{"system_prompt": "Be kind.", "question": "Hi?", "response": "Hello."}],
        {"type": "columns", "system": "system_prompt", "user": "question", "assistant": "response"},
        "columns system_prompt, question, response",
    ),
    "a preference set": (
        [{"chosen": SAID, "rejected": SAID}],
        {"type": "messages", "column": "chosen"},
        "column chosen, what was preferred",
    ),
    "columns of calls": (
        [{"query": "Hi?", "answers": '[{"name": "f", "arguments": {}}]', "tools": "[]"}],
        {"type": "columns", "user": "query", "calls": "answers"},
        "columns query, answers of calls, tools",
    ),
    "texts that take turns": ([{"data": ["Hi?", "Hello."], "id": "0"}], {"type": "alternating", "column": "data"}, ""),
    "a transcript": (
        [{"text": "### Human: Hi?### Assistant: Hello."}],
        {"type": "transcript"},
        "column text, a transcript",
    ),
    "a transcript after a preamble": (
        [{"text": "A chat. USER: Hi? ASSISTANT: Hello.</s>"}],
        {"type": "transcript", "before": "system"},
        "column text, a transcript",
    ),
    "transcripts of what was preferred": (
        [dict.fromkeys(("chosen", "rejected"), "\n\nHuman: Hi?\n\nAssistant: Hello.")],
        {"type": "transcript", "column": "chosen"},
        "column chosen, a transcript, what was preferred",
    ),
    "messages and the text of their reply": (
        [{"input": SAID[:1], "output": "Hello.", "system_prompt": "Be kind."}],
        {"type": "prompt_completion", "prompt": "input", "completion": "output", "system": "system_prompt"},
        "columns input and output, messages and their reply",
    ),
    "a preference set with prompts": (
        [{"prompt": SAID[:1], "chosen": SAID[1:], "rejected": SAID[1:]}],
        {"type": "prompt_completion", "completion": "chosen"},
        "columns prompt and chosen, of messages, what was preferred",
    ),
    "a preference set of texts": (
        [{"prompt": "Hi?", "chosen": "Hello.", "rejected": "What?"}],
        {"type": "prompt_completion", "completion": "chosen"},
        "columns prompt and chosen, of text, what was preferred",
    ),
    "segments": ([{"segments": [{"text": "Hi.", "label": True}]}], {}, "column segments, pieces with a label"),
    "tokenized": (
        [{"input_ids": [5, 6], "labels": [-100, 6], "loss_mask": [1, 1]}],
        {},
        "column input_ids, tokens, with labels and loss_mask",
    ),
    "pairs of texts": (
        [{"dialog": [["Hi?", "Hello."]]}],
        {"type": "alternating", "column": "dialog"},
        "column dialog, texts that take turns",
    ),
    "an answer that is a number": (
        [{"question": "How many?", "answer": 12}],
        {"type": "columns", "user": "question", "assistant": "answer"},
        "columns question, answer",
    ),
    "a message that says nothing": (
        [{"messages": [*SAID, {"role": "assistant", "content": None}]}],
        {"type": "messages"},
        "column messages",
    ),
    "messages in a cell of a table": ([{"messages": json.dumps(SAID)}], {"type": "messages"}, "column messages"),
    "one bad row of several": (
        [{"messages": "?"}, {"messages": SAID}, {"messages": SAID}],
        {"type": "messages"},
        "column messages",
    ),
}


@pytest.fixture
def given(tmp_path):
    """Return a function that writes rows and a recipe that leaves the format out, and returns the recipe's path."""

    def write(data, source=None, **sections):
        write_rows(tmp_path / "rows.jsonl", data)
        recipe = {
            "model": {"build": TINY},
            "data": {"train": {"path": "rows.jsonl", **(source or {})}, "max_length": 256},
            "quantization": "fp32",
            "chat_template": "chatml",
            "output": str(tmp_path / "out"),
            **sections,
        }
        file = tmp_path / "mine.yaml"
        file.write_text(yaml.safe_dump(recipe, sort_keys=False))
        return file

    return write


def refused(file, **how):
    """Return the one problem of a recipe."""
    with pytest.raises(RecipeError) as caught:
        sftplug.load(file, **how)
    (problem,) = caught.value.problems
    return problem


# --- one format recognizes them ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", THEIRS)
def test_rows_say_their_format(name, given):
    data, written, by = THEIRS[name]
    loaded = sftplug.load(given(data))
    written = written or {"type": name}
    made = loaded.recipe.data.train[0].format
    assert {key: value for key, value in made.model_dump(by_alias=True).items() if key in written} == written
    assert loaded.tree.data["data"]["train"][0]["format"] == written
    (found,) = loaded.told()
    assert f"rows.jsonl: read as {written['type']} (" in found
    assert by in found


def test_it_is_in_force_as_if_it_were_written(given, command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    file = given([{"talk": SAID}])
    again = yaml.safe_load(file.read_text())
    again["data"]["train"]["format"] = {"type": "messages", "column": "talk"}
    found = sftplug.load(file)
    assert found.recipe.model_dump() == sftplug.load(again).recipe.model_dump()
    values = {value.path: value for value in sftplug.explain(found).values}
    for option in ("type", "column"):
        assert values[f"data.train[0].format.{option}"].origin == "read from the rows"
    assert values["data.train[0].format.tools"].origin == "default of format messages"
    first = command("check", file)
    assert first.exit_code == 0, first.output
    assert f"note: {file.parent / 'rows.jsonl'}: read as messages (column talk)" in first.output
    assert re.search(r"format +messages +read from the rows", first.output)
    sftplug.prepare(found)
    assert sftplug.prepare(again).ledger.reused, "rows are prepared once, whoever says what they are"


def test_other_processes_are_told_and_look_at_no_row(given):
    loaded = sftplug.load(given([{"messages": SAID}]))
    assert loaded.written.data["data"]["train"][0]["format"] == {"type": "messages"}


def test_the_example_of_the_readme_needs_no_format(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "rows.jsonl", [{"conversations": TURNS}])
    recipe = sftplug.load(
        {"model": "Qwen/Qwen3-0.6B", "data": {"train": {"path": "rows.jsonl"}}, "adapter": "lora"}, "adapter.r=32"
    )
    assert recipe.recipe.data.train[0].format.type == "sharegpt"


def test_held_out_rows_say_their_own(given, tmp_path):
    write_rows(tmp_path / "held.jsonl", [{"conversations": TURNS}])
    file = given([{"messages": SAID}])
    loaded = sftplug.load(file, f"data.eval={{path: {tmp_path / 'held.jsonl'}}}")
    assert loaded.recipe.data.eval[0].format.type == "sharegpt"
    assert len(list(loaded.told())) == 2


def test_what_is_looked_at_are_rows_as_the_format_gets_them(given):
    data = [{"talk": SAID, "more": SAID}]
    assert "the columns talk and more hold messages" in refused(given(data)).text
    for source in ({"ignore": ["more"]}, {"process": {"rename": {"columns": {"talk": "messages"}}}}):
        assert sftplug.load(given(data, source)).recipe.data.train[0].format.type == "messages"


def test_a_processor_that_needs_all_rows_is_no_obstacle(given):
    file = given([{"messages": SAID}] * 60, {"process": {"sample": {"n": 55}}})
    assert sftplug.load(file).recipe.data.train[0].format.type == "messages"


# --- none, or several -------------------------------------------------------------------------------------------------


def test_rows_that_none_recognizes_are_refused_with_the_reason_of_each(given):
    problem = refused(given([{"frage": "Hi?", "antwort": "Hello."}]))
    assert problem.path == "data.train.format"
    assert problem.origin.startswith("mine.yaml:")
    for text in (
        "no installed format recognizes the rows, which have the columns frage, antwort",
        "alpaca: no text in `instruction`",
        "messages: no column holds a list of messages with `role`",
        "`format: {type: columns, user: COLUMN, assistant: COLUMN}`",
    ):
        assert text in problem.text
    file = given([{"frage": "Hi?", "antwort": "Hello."}])
    loaded = sftplug.load(file, "data.train.format={type: columns, user: frage, assistant: antwort}")
    assert len(sftplug.prepare(loaded).train) == 1


def test_rows_that_several_recognize_are_refused_with_a_line_for_each(given):
    data = [{"talk": SAID, "instruction": "Hi?", "output": "Hello."}]
    text = refused(given(data)).text
    assert "2 formats recognize the rows" in text
    offered = re.findall(r"`format: (.*?)` \(", text)
    assert sorted(offered) == ["alpaca", "{type: messages, column: talk}"]
    for line in offered:
        loaded = sftplug.load(given(data), f"data.train.format={line}")
        assert loaded.recipe.data.train[0].format.type in line


def test_messages_of_a_forum_are_no_text(given):
    text = refused(given([{"message_id": "a", "parent_id": None, "text": "Hi?", "role": "prompter"}])).text
    assert "text: `text` stands beside `parent_id`, so a row seems to be one message of a conversation" in text


def test_rows_that_cannot_be_read_are_told_with_their_place(given, tmp_path):
    file = given([])
    assert "cannot be read from the rows" in refused(file).text
    (tmp_path / "rows.jsonl").write_text('{"messages": [}\n')
    assert "rows.jsonl:1" in refused(file).text
    (tmp_path / "rows.jsonl").unlink()
    assert refused(file).text.startswith(f"the file {tmp_path / 'rows.jsonl'} does not exist.")


# --- a stranger's format ----------------------------------------------------------------------------------------------


class Pairs(DatasetFormat):
    """Rows of two texts."""

    type: Literal["pairs"] = "pairs"

    @classmethod
    def recognizes(cls, rows):
        own = all("q" in row for row in rows)
        rows[0].clear()  # what it does with its copy is its own business
        return Recognized("column q") if own else "no column `q`"

    def to_conversation(self, row):
        return Conversation((Message("user", row["q"]), Message("assistant", row["a"])))


@sftplug.hookimpl
def sftplug_dataset_formats():
    return [Pairs]


def test_a_strangers_format_takes_part(given):
    here = sys.modules[__name__]
    loaded = sftplug.load(given([{"q": "Hi?", "a": "Hello."}]), plugins=[here])
    assert loaded.recipe.data.train[0].format == Pairs()
    assert __name__ in {plugin.name for plugin in loaded.plugins()}
    text = refused(given([{"messages": SAID, "q": "Hi?"}]), plugins=[here]).text
    assert "`format: messages` (column messages); `format: pairs` (column q)" in text
    assert "pairs: no column `q`" in refused(given([{"x": 1}]), plugins=[here]).text


def fails(cls, rows):
    """Fail as a plugin does."""
    raise KeyError("q")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (fails, "recognizes() failed: KeyError: 'q'"),
        (lambda cls, rows: True, "recognizes() must return sftplug.Recognized, a sentence"),
        (lambda cls, rows: Recognized("", {}), "must say by what it knows the rows"),
    ],
)
def test_a_fault_in_a_format_that_is_not_needed_is_a_warning(answer, said, given, monkeypatch):
    monkeypatch.setattr(Pairs, "recognizes", classmethod(answer))
    loaded = sftplug.load(given([{"messages": SAID}]), plugins=[sys.modules[__name__]])
    assert loaded.recipe.data.train[0].format.type == "messages"
    assert any("'pairs'" in warning and said in warning for warning in loaded.warnings())
    assert said in refused(given([{"x": 1}]), plugins=[sys.modules[__name__]]).text


def test_options_that_it_does_not_take_are_its_fault(given, monkeypatch):
    monkeypatch.setattr(Pairs, "recognizes", classmethod(lambda cls, rows: Recognized("q", {"colum": "q"})))
    with pytest.raises(PluginError, match=r"'pairs'.*recognizes rows with options that it does not take: colum: Extra"):
        sftplug.load(given([{"q": "Hi?", "a": "Hello."}]), plugins=[sys.modules[__name__]])


def test_a_format_that_a_recipe_blocks_is_not_asked(given):
    file = given([{"messages": SAID}])
    text = refused(file, without=["formats"]).text
    assert "no installed format recognizes the rows, which have the columns messages" in text


# --- first rows only, and once ----------------------------------------------------------------------------------------


class Far(sftplug.DatasetSource):
    """Rows that come over the network."""

    type: Literal["far"] = "far"

    @property
    def remote(self):
        return True

    def label(self):
        return "far"

    def rows(self):
        for number, row in enumerate(rows(200)):
            FETCHED.append(number)
            yield Row(row, f"far[{number}]")


FETCHED = []


@sftplug.hookimpl
def sftplug_dataset_sources():
    return [Far]


def test_first_rows_alone_are_looked_at_and_nothing_is_fetched_twice(given):
    FETCHED.clear()
    file = given([], quantization="fp32")
    loaded = sftplug.load(file, "data.train={source: far}", plugins=[sys.modules[__name__]])
    assert loaded.recipe.data.train[0].format.type == "messages"
    assert [*range(LOOKED_AT)] == FETCHED
    again = loaded.again("train.seed=3")
    assert len(FETCHED) == LOOKED_AT, "what it is was known"
    made = sftplug.prepare(again)
    assert [*range(200)] == FETCHED
    assert len(made.train) == 200
    sftplug.prepare(again)
    assert len(FETCHED) == 400, "who reads them again gets all of them"


# --- a run ------------------------------------------------------------------------------------------------------------

TRAIN = {
    "max_steps": 4,
    "per_device_train_batch_size": 4,
    "save_strategy": "steps",
    "save_steps": 2,
    "logging_steps": 1,
}


def test_a_resumed_run_keeps_what_its_rows_were_found_to_be(given, command, monkeypatch):
    file = given([{"talk": row["messages"]} for row in rows()], adapter="lora", train={**TRAIN, "save_total_limit": 0})
    output = train_file(file).output
    record = RunDirectory.open(output)
    kept = record.recipe()["data"]["train"][0]["format"]
    assert (kept["type"], kept["column"]) == ("messages", "talk")
    assert record.origins()["data.train[0].format.type"] == "read from the rows"
    whole = (output / "adapter_model.safetensors").read_bytes()
    killed_after(output, 2)
    text = sftplug.load(file).registry.classes()[DatasetFormat]["text"]
    monkeypatch.setattr(text, "recognizes", classmethod(lambda cls, rows: Recognized("greed", {"column": "talk"})))
    assert "2 formats recognize the rows" in refused(file).text
    resumed = command("train", file)
    assert resumed.exit_code == 0, resumed.exception
    assert record.state().attempts[-1]["from_step"] == 2
    assert record.recipe()["data"]["train"][0]["format"] == kept
    assert (output / "adapter_model.safetensors").read_bytes() == whole
    anew = command("train", file, "--overwrite")
    assert "2 formats recognize the rows" in str(anew.exception)


def test_a_finished_run_is_loaded_without_its_rows(given, tmp_path):
    file = given([{"talk": row["messages"]} for row in rows()], train={"max_steps": 1, "save_strategy": "no"})
    output = train_file(file).output
    (tmp_path / "rows.jsonl").unlink()
    loaded = RunDirectory.open(output).load_recipe(rows=False)
    assert loaded.recipe.data.train[0].format.column == "talk"
    assert json.loads((output / "origins.json").read_text())["data.train[0].format.column"] == "read from the rows"
