"""Columns that nothing reads: the line that reads them where there is one, and a line to paste that loses nothing."""

import re

import pytest
import yaml
from conftest import TINY, write_rows

import sftplug
from sftplug import DataError

TURNS = [{"role": "user", "content": "How?"}, {"role": "assistant", "content": "Boil it."}]
SHARED = [{"from": "human", "value": "How?"}, {"from": "gpt", "value": "Boil it."}]
TOOL = {"type": "function", "function": {"name": "f", "description": "A tool.", "parameters": {"type": "object"}}}


@pytest.fixture
def ready(tmp_path):
    """Return a function that prepares rows of a source."""

    def prepare(*rows, template="chatml", **source):
        train = {"path": str(write_rows(tmp_path / "rows.jsonl", rows)), **source}
        return sftplug.prepare(
            sftplug.load({"model": {"build": TINY}, "data": {"train": train}, "chat_template": template})
        )

    return prepare


def text(prepared):
    return prepared.tokenizer.decode(prepared.train[0]["input_ids"])


def pasted(said, key):
    """Return the lines offered for a key of the source, as YAML reads them."""
    return [yaml.safe_load(line)[key] for line in re.findall(rf"`({key}: .*?)`", said)]


def test_the_line_that_reads_columns_keeps_what_the_recipe_says_already(ready):
    row = {"turns": SHARED, "system_prompt": "Be brief.", "functions": [TOOL], "id": 7}
    with pytest.raises(DataError) as caught:
        ready(row, format={"type": "sharegpt", "column": "turns"})
    format_, (aside, rest) = pasted(str(caught.value), "format"), pasted(str(caught.value), "ignore")
    assert format_ == [{"type": "sharegpt", "column": "turns", "system": "system_prompt", "tools": "functions"}]
    assert (aside, rest) == (["system_prompt", "functions"], ["id"])
    prepared = ready(row, format=format_[0], ignore=rest)
    assert "Be brief." in text(prepared)
    assert "A tool." in text(prepared)


def test_what_seems_to_be_for_the_model_is_never_in_the_line_for_the_rest(ready):
    row = {
        "conversations": SHARED,
        "system": "Be brief.",
        "system_prompt": "Be long.",
        "context": "A kitchen.",
        "id": 7,
    }
    with pytest.raises(DataError) as caught:
        ready(row, format="sharegpt")
    assert not pasted(str(caught.value), "format")  # `system` has a column already, and `context` no option
    assert pasted(str(caught.value), "ignore") == [["system_prompt", "context"], ["id"]]
    with pytest.raises(DataError, match=r"`format: \{type: alpaca, input: context\}` reads it"):
        ready({"instruction": "Where?", "context": "A kitchen.", "output": "There."}, format="alpaca")


@pytest.mark.parametrize("name", ["system_fingerprint", "tool_count", "contextual", "operating_system_id"])
def test_what_only_sounds_alike_is_one_of_the_rest(ready, name):
    with pytest.raises(DataError) as caught:
        ready({"messages": TURNS, name: "7"})
    assert str(caught.value).count(name) == 2
    assert pasted(str(caught.value), "ignore") == [[name]]


def test_a_column_that_a_message_repeats_needs_no_line_and_another_question_is_for_the_model(ready):
    (question, reply) = (turn["content"] for turn in TURNS)
    again = ready({"messages": TURNS, "prompt": f" {question}\n", "answer": reply})
    assert again.ledger.splits["train"][0].unread == ()
    with pytest.raises(DataError) as caught:
        ready({"messages": TURNS, "prompt": "Another?", "reasoning": "So.", "choices": ["a"], "id": 3})
    assert "what seems to be for the model in prompt, reasoning, choices, and no option" in str(caught.value)
    assert pasted(str(caught.value), "ignore") == [["prompt", "reasoning", "choices"], ["id"]]


def test_the_rest_is_ignored_where_the_recipe_says_so_and_named_in_the_ledger(ready):
    row = {"messages": TURNS, "system_prompt": "Be brief.", "id": 7}
    prepared = ready(row, ignore="rest")
    assert "Be brief." not in text(prepared)
    assert [a.unread for _, a in prepared.ledger.accounts()] in ([("system_prompt", "id")], [("id",)])
    assert ready({"messages": TURNS, "rest": 1, "id": 2}, ignore=["rest", "id"]).ledger.splits["train"][0].unread == ()


SHOWS = (
    "{% if mood %}{{ mood }}\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize("format_", ["messages", "sharegpt", "prompt_completion"])
def test_arguments_of_the_template_come_from_a_column(ready, tmp_path, format_):
    (tmp_path / "shows.jinja").write_text(SHOWS)
    template = {"file": str(tmp_path / "shows.jinja")}
    rows = {
        "messages": {"messages": TURNS},
        "sharegpt": {"conversations": SHARED},
        "prompt_completion": {"prompt": TURNS[:1], "completion": TURNS[1:]},
    }
    row = rows[format_]
    for given in ({"mood": "gay", "date": None}, '{"mood": "gay", "date": null}'):
        prepared = ready({**row, "chat_template_kwargs": given}, format=format_, template=template)
        assert text(prepared).startswith("gay\n")
    without = ready({**row, "chat_template_kwargs": None}, format=format_, template=template)
    assert text(without).startswith("<|im_start|>user")
    how = {"type": format_, "template_kwargs": "how"}
    own = ready({**row, "how": {"mood": "gay"}}, format=how, template=template, template_kwargs={"mood": "grave"})
    assert text(own).startswith("gay\n")  # and not what its source says
    with pytest.raises(DataError, match="chat_template_kwargs: must be an object of arguments, not a list"):
        ready({**row, "chat_template_kwargs": []}, format=format_, template=template)
    with pytest.raises(DataError, match=r"template_kwargs\.tools: is what the row gives the chat template already"):
        ready({**row, "chat_template_kwargs": {"tools": []}}, format=format_, template=template)


@pytest.mark.parametrize("as_text", [False, True])
def test_arguments_that_the_template_does_not_read_are_refused_with_the_line_that_leaves_them_out(ready, as_text):
    given = '{"mood": "gay", "haste": true}' if as_text else {"mood": "gay", "haste": True}
    row = {"messages": TURNS, "chat_template_kwargs": given}
    with pytest.raises(DataError) as caught:
        ready(row)
    assert "arguments ('haste', 'mood') that chat template 'chatml' does not read" in str(caught.value)
    (line,) = pasted(str(caught.value), "ignore")
    assert line == ["chat_template_kwargs.haste", "chat_template_kwargs.mood"]
    assert text(ready(row, ignore=line)) == text(ready({"messages": TURNS}))


@pytest.mark.parametrize("name", ["", "0", "a, b", "yes", "x: y", "#", "v[1].w"])
def test_a_column_of_any_name_is_offered_as_yaml_reads_it(ready, name):
    """Tables that pandas wrote have an index without a name."""
    with pytest.raises(DataError) as caught:
        ready({"messages": TURNS, name: 3}, format="messages")
    (ignored,) = pasted(str(caught.value), "ignore")
    assert ignored == [name]
    assert ready({"messages": TURNS, name: 3}, format="messages", ignore=ignored).train.num_rows == 1


def test_a_verdict_is_told_apart_where_it_is_false_in_some_row(ready):
    good, bad = ({"messages": TURNS, "is_correct": value} for value in (True, False))
    with pytest.raises(DataError, match="columns that its format does not read: is_correct"):
        ready(good, good, format="messages")
    with pytest.raises(DataError) as caught:
        ready(good, bad, format="messages")
    (process,) = pasted(str(caught.value), "process")
    assert ready(good, bad, format="messages", process=process).train.num_rows == 1
