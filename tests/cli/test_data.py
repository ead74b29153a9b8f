"""`sftplug data`: what is in a dataset, told without a recipe, and a recipe that works as it is printed."""

import json
from pathlib import Path

import pytest
import yaml
from conftest import TINY, write_rows

import sftplug
from sftplug import DataError, LoadedRecipe

TALK = [{"from": "human", "value": "Who is {{name}}?"}, {"from": "gpt", "value": "Ada.<|im_end|>"}]
SHAREGPT = [
    {"conversations": TALK, "system_prompt": "Be kind.", "id": 1},
    {"conversations": [*TALK[:1], {"from": "gpt", "value": "Nobody."}], "system_prompt": None, "id": 2},
    {"conversations": [*TALK[:1], {"from": "gpt", "value": "Nobody."}], "system_prompt": None, "id": 2},
    {"conversations": [{"from": "human", "value": 7}], "system_prompt": None, "id": 4},
]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
CALL = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
SHAPES = {
    "sharegpt": SHAREGPT,
    "messages": [
        {
            "talk": [
                {"role": "user", "content": "Do it."},
                {"role": "assistant", "content": None, "tool_calls": [CALL], "annotations": "x"},
                {"role": "tool", "content": "Done."},
                {"role": "assistant", "content": "It is done.", "reasoning_content": "So it is."},
            ],
            "tools": [TOOL],
        }
    ],
    "roles": [{"messages": [{"role": "user", "content": "Hi?"}, {"role": "bing", "content": "Hello."}]}],
    "prompts": [{"prompt": "Hi?", "completion": "Hello."}],
    "dolly": [{"instruction": "Hi?", "context": "", "response": "Hello.", "category": "qa"}],
    "text": [{"text": "Ferns have spores.", "url": "a"}],
    "questions": [{"question": "Hi?", "answer": "Hello.", "system_prompt": "Be kind.", "source": "x"}],
}


def checked(recipe):
    """Return what is wrong with a recipe that is printed, on a tiny model."""
    written = yaml.safe_load(recipe)
    return sftplug.check(sftplug.load({**written, "quantization": "fp32", "chat_template": "chatml"}))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_recipe_that_is_offered_works(shape, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "rows.jsonl", SHAPES[shape])
    found = sftplug.inspect_data("rows.jsonl", model={"build": TINY})
    assert found.survey.rows == len(SHAPES[shape])
    assert found.recipe is not None
    wrong = checked(found.recipe)
    if shape == "text":  # the template that the test names renders no text, and is not the recipe's
        wrong = [text for text in wrong if "chat_template" not in text]
    assert wrong == []


def test_the_command_tells_what_is_there(tmp_path, command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "rows.jsonl", SHAREGPT)
    done = command("data", "rows.jsonl")
    assert done.exit_code == 0, done.exception
    for line in (
        "format: sharegpt (column conversations)",
        "rows: 4",
        "column conversations: list of object",
        "column system_prompt: text, 8 characters, null in 3 of 4 rows",
        "turns: 2 a row; user 3, assistant 3",
        "control tokens of ChatML in texts: <|im_end|> 1",
        "placeholders in texts: {{name}} 3",
        "equal to a row before: 1",
        "does not fit: rows.jsonl:4: conversations[0].value: must be text or a list of parts, not a number",
        "# 1 rows do not fit and are skipped",
    ):
        assert line in done.output, done.output
    assert yaml.safe_load(done.output.partition("a recipe for it:")[2])["data"] == {
        "train": {
            "path": "rows.jsonl",
            "format": {"type": "sharegpt", "system": "system_prompt"},
            "ignore": ["id"],
        },
        "on_bad_row": "skip",
    }


def test_json_says_the_same(tmp_path, command):
    write_rows(tmp_path / "rows.jsonl", SHAPES["messages"] * 3)
    done = command("data", tmp_path / "rows.jsonl", "--json", "--first", "2")
    known = json.loads(done.stdout)
    assert known["format"] == {"type": "messages", "column": "talk"}
    assert (known["rows"], known["tools"], known["calls"], known["reasoning"]) == (2, 2, 2, 2)
    assert known["turns"]["100%"] == 4
    assert "`messages[].annotations`" in " ".join(known["unread"]) or "talk[].annotations" in " ".join(known["unread"])


def test_rows_that_nobody_knows_are_counted_all_the_same(tmp_path, command):
    write_rows(tmp_path / "rows.jsonl", [{"frage": "Hi?", "antwort": "Hello."}, {"frage": "And?"}])
    done = command("data", tmp_path / "rows.jsonl")
    assert done.exit_code == 0
    assert "format: not known (no installed format recognizes the rows" in done.output
    assert "column antwort: text, 6 characters, null in 1 of 2 rows" in done.output
    assert "a recipe" not in done.output
    named = command("data", tmp_path / "rows.jsonl", "--format", "{type: columns, user: frage, assistant: antwort}")
    assert "format: columns (as it was named)" in named.output
    assert "does not fit: rows.jsonl:2: " in named.output


def test_no_recipe_is_offered_for_rows_of_which_none_fits(tmp_path):
    file = write_rows(tmp_path / "rows.jsonl", [{"messages": [{"role": "user", "content": 7}]}])
    found = sftplug.inspect_data(file)
    assert found.format == {"type": "messages"}
    assert "must be text or a list of parts, not a number" in found.refused[0]
    assert found.recipe is None


def test_splits_and_files_are_told(tmp_path, command):
    for name in ("train-1", "train-2", "test"):
        write_rows(tmp_path / f"{name}.jsonl", [{"text": name}])
    done = command("data", tmp_path)
    assert f"note: {tmp_path} " in done.output, "which split is read, and what is left out"
    assert "files: train-1.jsonl 1, train-2.jsonl 1" in done.output
    assert "rows: 1\n" in command("data", tmp_path, "--split", "test").output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("gone.jsonl",), "path: the file"),
        (("bad.jsonl",), "bad.jsonl:1: "),
        (("empty.jsonl",), "holds no rows"),
        (("rows.jsonl", "--format", "mesages"), "format: 'mesages' is not installed. Did you mean 'messages'?"),
    ],
)
def test_what_cannot_be_read_is_said(arguments, said, tmp_path, command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.jsonl").write_text("{\n")
    (tmp_path / "empty.jsonl").write_text("")
    write_rows(tmp_path / "rows.jsonl", SHAREGPT)
    done = command("data", *arguments)
    assert isinstance(done.exception, DataError)
    assert said in str(done.exception)


def test_progress_is_told_and_lengths_are_of_the_model(tmp_path):
    write_rows(tmp_path / "rows.jsonl", SHAPES["questions"] * 250)
    told = []
    found = sftplug.inspect_data(
        tmp_path / "rows.jsonl", model={"build": TINY}, progress=lambda *how: told.append(how), without=()
    )
    assert told == [("reading rows", 100, None), ("reading rows", 200, None)]
    assert found.survey.tokens.total() == 250
    assert found.survey.duplicates == 249
    assert isinstance(sftplug.load(yaml.safe_load(found.recipe)), LoadedRecipe)
    assert Path(found.source).name == "rows.jsonl"
