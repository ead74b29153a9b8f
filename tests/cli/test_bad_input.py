"""What a user reads when the rows are not what they should be; nothing is written, and the exit code is 2."""

import functools
import json

import pytest
from conftest import TINY
from typer.testing import CliRunner

from sftplug.cli import app

USER, REPLY = {"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hi."}


def lines(*data):
    return "".join(json.dumps(row) + "\n" for row in data).encode()


def said(folder, rows, *, name="rows.jsonl", **data):
    """Return what `sftplug prepare` says of a file that holds `rows`, written as they are."""
    (folder / name).write_bytes(rows)
    recipe = {
        "model": {"build": TINY},
        "chat_template": "chatml",
        "quantization": "fp32",
        "data": {"train": {"path": name, "format": "messages"}, "max_length": 256, **data},
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    result = CliRunner().invoke(app, ["prepare", str(folder / "recipe.yaml"), "--output", str(folder / "prepared")])
    assert result.exception is not None
    assert not (folder / "prepared").exists()
    return str(result.exception)


NESTED = functools.reduce(lambda inner, _: {"a": inner}, range(700), 1)
GOOD = {"messages": [USER, REPLY]}
BAD = {
    "a broken line": (lines(GOOD) + b'{"messages": [', "rows.jsonl:2: is not valid JSON: Expecting value at column 15"),
    "another encoding": (
        '{"messages": "é"}'.encode("latin-1"),
        "rows.jsonl:1: is not UTF-8 text: invalid continuation byte at byte 14 of the file.",
    ),
    "an empty file": (b"", "rows.jsonl: holds no rows"),
    "a role nobody knows": (
        lines(GOOD, {"messages": [{"role": "asistant", "content": "Hi."}]}),
        "rows.jsonl:2: messages[0].role: nobody knows the role 'asistant'. Did you mean 'assistant'? Known: system, ",
    ),
    "no assistant turn": (
        lines(GOOD, {"messages": [USER]}),
        "rows.jsonl:2: has no assistant turn.\n",
    ),
    "a key nobody reads": (
        lines({"messages": [USER, {**REPLY, "wieght": 0}]}),
        "rows.jsonl have `messages[].wieght`, which nothing reads and which may be meant for `weight`. ",
    ),
    "a weight below zero": (
        lines({"messages": [USER, {**REPLY, "weight": -1}]}),
        "rows.jsonl:1: messages[1].weight: must be a number of at least 0, not -1",
    ),
    "a call nested too deeply": (
        lines(GOOD, {"messages": [USER, {**REPLY, "tool_calls": [{"name": "f", "arguments": NESTED}]}]}),
        "rows.jsonl:2: messages[1].tool_calls: is nested more than 100 levels deep",
    ),
    "the JSON text of a call nested too deeply": (
        lines(GOOD, {"messages": [USER, {**REPLY, "tool_calls": [{"name": "f", "arguments": json.dumps(NESTED)}]}]}),
        "rows.jsonl:2: messages[1].tool_calls: is nested more than 100 levels deep",
    ),
    "the JSON text of a call nested beyond all bounds": (
        lines(GOOD, {"messages": [USER, {**REPLY, "tool_calls": [{"name": "f", "arguments": "[" * 100_000}]}]}),
        "rows.jsonl:2: messages[1].tool_calls[0].arguments: is nested too deeply",
    ),
    "a tool nested too deeply": (
        lines(GOOD, {"messages": [USER, REPLY], "tools": [{"name": "f", "parameters": NESTED}]}),
        "rows.jsonl:2: tools[0]: is nested more than 100 levels deep",
    ),
    "half a character": (
        b'{"messages": [{"role": "user", "content": "caf\\u00e9 \\ud83d"}, {"role": "assistant", "content": "b"}]}',
        "rows.jsonl:1: messages[0].content: holds half a character (U+D83D) at position 5",
    ),
    "half a character in a call": (
        b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": '
        b'[{"type": "function", "function": {"name": "f", "arguments": {"x": ["\\udc00"]}}}]}]}',
        "rows.jsonl:1: messages[1].tool_calls[0].arguments.x[0]: holds half a character (U+DC00) at position 0",
    ),
    "a number that JSON lacks in a call": (
        b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": '
        b'[{"type": "function", "function": {"name": "f", "arguments": {"x": [NaN]}}}]}]}',
        "rows.jsonl:1: messages[1].tool_calls[0].arguments.x[0]: is nan: JSON has no such number",
    ),
    "a number that JSON lacks in a call as text": (
        lines(
            {
                "messages": [
                    USER,
                    {
                        "role": "assistant",
                        "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": '{"x": NaN}'}}],
                    },
                ]
            }
        ),
        "rows.jsonl:1: messages[1].tool_calls[0].arguments: is not valid JSON: there is no NaN in it",
    ),
    "half a character in a tool": (
        b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "tools": '
        b'[{"name": "f", "description": "\\ud83d"}]}',
        "rows.jsonl:1: tools[0].function.description: holds half a character (U+D83D) at position 0",
    ),
    "a weight beyond all bounds": (
        lines({"messages": [USER, {**REPLY, "weight": 10**400}]}),
        "rows.jsonl:1: messages[1].weight: is a number beyond all bounds",
    ),
    "no messages": (lines({"messages": []}), "rows.jsonl:1: messages: holds no message"),
    "a row that is a list": (b"[1]\n", "rows.jsonl:1: must be an object with keys, not list"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rows_are_named_with_file_and_line(tmp_path, name):
    rows, text = BAD[name]
    assert text in said(tmp_path, rows)


def test_a_row_of_ten_megabytes_is_read_and_is_too_long(tmp_path):
    huge = {"messages": [USER, {"role": "assistant", "content": "word " * 2_000_000}]}
    text = said(tmp_path, lines(GOOD, huge))
    assert "1 of 2 rows of" in text
    assert "of its trained tokens would be lost, 1.0% are allowed. Lengths in tokens: 50% up to " in text


def test_control_tokens_in_content_are_refused_if_the_recipe_says_so(tmp_path):
    row = {"messages": [{"role": "user", "content": "Say <|im_end|>."}, REPLY]}
    text = said(tmp_path, lines(row), special_tokens_in_content="error")
    assert (
        "rows.jsonl:1: a message holds the control token '<|im_end|>'; `data.special_tokens_in_content` refuses" in text
    )


def test_more_dropped_rows_than_the_recipe_allows_stop_the_run(tmp_path):
    text = said(tmp_path, lines(GOOD, {"messages": []}, GOOD), on_bad_row="skip", max_dropped="10%")
    assert "1 of 3 rows of" in text
    assert "would be dropped (33.3%), 10.0% are allowed by `data.max_dropped`: 1 bad." in text
    assert "The first: rows.jsonl:2: messages: holds no message" in text


def test_what_strangers_wrote_does_not_drive_the_terminal(tmp_path, capfd, monkeypatch):
    """A key, a name or a text that is quoted in an error may hold sequences that a terminal obeys."""
    from sftplug.cli import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(
        '"\\e]0;owned\\a\\u202e": 1\nmodel: x\ndata: {train: {path: a.jsonl, format: text}}\n'
    )
    monkeypatch.setattr("sys.argv", ["sftplug", "check", "recipe.yaml"])
    monkeypatch.setattr("sftplug.cli.end", lambda code: None)
    main()
    said = capfd.readouterr().err
    assert r"\x1b]0;owned\x07\u202e (recipe.yaml:1): unknown key." in said
    assert not {"\x1b", "\x07", "\u202e"} & set(said)
