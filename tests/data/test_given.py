"""What a source says in its rows: texts that it fills in, and a system turn; and what is told where neither is said."""

import json

import pytest
from conftest import write_rows
from typer.testing import CliRunner

from sftplug import DataError, Message
from sftplug.cli import app
from sftplug.data.row_warnings import placeholders
from sftplug.data.store import key_of
from sftplug.model.loading import load_tokenizer
from sftplug.recipe import load_recipe

IDENTITY = [
    {"instruction": "Who are you?", "input": "", "output": "I am {{name}}, made by {{author}}."},
    {"instruction": "Are you {{name}}?", "input": "", "output": "Yes, I am {{name}}."},
    {"instruction": "What is 1 + 1?", "input": "", "output": "2"},
]
FILLED = {"{{name}}": "Ada", "{{author}}": "the Analytical Society"}


def source(**options):
    return {"train": {"path": "rows.jsonl", "format": "alpaca", **options}, "max_length": 256}


def decoded(prepared):
    return [prepared.tokenizer.decode(row) for row in prepared.train["input_ids"]]


def account_of(prepared):
    return prepared.ledger.splits["train"][0]


def write(recipe_file, tmp_path, rows, data, **sections):
    file = recipe_file(**sections)
    write_rows(tmp_path / "rows.jsonl", rows)
    recipe = file.read_text().split("data:")[0]
    file.write_text(f"{recipe}data: {json.dumps(data)}\nchat_template: chatml\nquantization: fp32\n")
    return file


def test_unfilled_placeholders_are_told_with_their_count_and_origin(recipe_file, prepared, tmp_path):
    account = account_of(prepared(write(recipe_file, tmp_path, IDENTITY, source())))
    assert account.noted["unfilled placeholder"] == 2
    name, author = account.groups["unfilled placeholder"].largest()
    assert (name.rows, name.origins) == (2, ["rows.jsonl:1", "rows.jsonl:2"])
    assert name.text == '{{name}} is left as it stands; `replace: {"{{name}}": TEXT}` beside the format fills it in.'
    assert author.sentence().startswith("rows.jsonl:1: {{author}} is left as it stands")


def test_replace_fills_them_in_and_is_counted(recipe_file, prepared, tmp_path):
    ready = prepared(write(recipe_file, tmp_path, IDENTITY, source(replace=FILLED)))
    assert "Who are you?" in decoded(ready)[0]
    assert "I am Ada, made by the Analytical Society.<|im_end|>" in decoded(ready)[0]
    assert "Are you Ada?" in decoded(ready)[1]
    account = account_of(ready)
    assert not account.noted
    assert (dict(account.filled), account.filled_rows) == ({"{{name}}": 3, "{{author}}": 1}, 2)
    assert account.to_dict()["replaced"] == {"{{name}}": 3, "{{author}}": 1}


def test_what_is_filled_in_is_not_searched_again_and_the_longest_text_goes_first(recipe_file, prepared, tmp_path):
    rows = [{"instruction": "ab a b", "input": "", "output": "."}]
    ready = prepared(write(recipe_file, tmp_path, rows, source(replace={"a": "b", "b": "a", "ab": "[a.b]"})))
    assert "[a.b] b a" in decoded(ready)[0]


def test_every_text_of_a_row_is_filled_in(recipe_file, prepared, tmp_path):
    call = {"function": {"name": "ask", "arguments": {"who": ["NAME", 1, None, {"x": "NAME"}]}}}
    tools = [{"name": "ask", "description": "Ask NAME.", "parameters": {"type": "object"}}]
    rows = [
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "Ask NAME."}]},
                {"role": "assistant", "reasoning_content": "NAME knows.", "content": "", "tool_calls": [call]},
            ],
            "tools": json.dumps(tools),
        }
    ]
    data = {"train": {"path": "rows.jsonl", "format": "messages", "replace": {"NAME": "Ada"}}, "max_length": 512}
    (text,) = decoded(prepared(write(recipe_file, tmp_path, rows, data)))
    assert "NAME" not in text
    assert text.count("Ada") == 5


def test_a_text_that_stands_nowhere_is_refused(recipe_file, prepared, tmp_path):
    file = write(recipe_file, tmp_path, IDENTITY, source(replace={**FILLED, "{{nmae}}": "Ada"}))
    message = r"`replace` of `data.train\[0\]` names '{{nmae}}', which stands in no row of .*rows.jsonl. Correct it"
    with pytest.raises(DataError, match=message):
        prepared(file)
    file = write(recipe_file, tmp_path, IDENTITY * 8, {**source(replace=FILLED), "eval_fraction": 0.3})
    ready = prepared(file)
    assert sum(account.filled["{{author}}"] for _, account in ready.ledger.accounts()) == 8


def test_what_is_filled_in_is_part_of_what_prepared_rows_are_known_by(recipe_file, tmp_path):
    def key(**options):
        recipe = load_recipe(str(write(recipe_file, tmp_path, IDENTITY, source(**options)))).recipe
        return key_of(recipe, load_tokenizer(recipe), frozenset(), [])

    assert len({key(), key(replace=FILLED), key(replace={"{{name}}": "Bob"}), key(system="Be brief.")}) == 4
    assert key(replace=FILLED) == key(replace=FILLED)


def test_rows_without_a_system_turn_get_that_of_the_source(recipe_file, prepared, tmp_path):
    rows = [{**IDENTITY[2]}, {**IDENTITY[2], "system": "Be brief."}]
    ready = prepared(write(recipe_file, tmp_path, rows, source(system="You are Ada.")))
    first, second = decoded(ready)
    assert first.startswith("<|im_start|>system\nYou are Ada.<|im_end|>\n<|im_start|>user\nWhat is 1 + 1?")
    assert second.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n")
    assert account_of(ready).led == account_of(ready).to_dict()["system_given"] == 1
    # What the row completes is the same messages as without.
    completion = prepared(write(recipe_file, tmp_path, rows, source(system="You are Ada.")), "masking=completion")
    assert [sum(label != -100 for label in row) for row in completion.train["labels"]] == [2, 2]


def test_the_recipe_s_own_system_turn_goes_to_the_rows_of_every_source(recipe_file, prepared, tmp_path):
    (tmp_path / "text.jsonl").write_text('{"text": "Once upon a time."}\n')
    alpaca = {"path": "rows.jsonl", "format": "alpaca"}
    sources = [alpaca, {**alpaca, "system": "Be brief."}, {"path": "text.jsonl", "format": "text", "masking": "all"}]
    data = {"train": sources, "eval": [alpaca], "system": "You are Ada.", "max_length": 256}
    ready = prepared(write(recipe_file, tmp_path, IDENTITY[2:], data))
    first, second, third = decoded(ready)
    assert first.startswith("<|im_start|>system\nYou are Ada.<|im_end|>\n<|im_start|>user\n")
    assert second.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n")
    assert third.startswith("Once upon a time.")
    assert ready.tokenizer.decode(ready.eval["input_ids"][0]) == first
    assert [account.led for _, account in ready.ledger.accounts()] == [1, 1, 0, 1]


@pytest.mark.parametrize(
    ("row", "options"),
    [
        ({"text": "Once upon a time."}, {"format": "text", "masking": "all"}),
        ({**IDENTITY[2], "system": "Be brief."}, {}),
        (IDENTITY[2], {"system": "Be brief."}),
    ],
)
def test_a_system_turn_of_the_recipe_that_no_row_gets_is_refused(recipe_file, prepared, tmp_path, row, options):
    data = {**source(**options), "system": "You are Ada."}
    with pytest.raises(DataError, match=r"`data\.system` is the system turn of no row"):
        prepared(write(recipe_file, tmp_path, [row], data))


def test_the_hidden_system_turn_of_a_template_gives_way(recipe_file, prepared, tmp_path):
    hidden = "<|im_start|>system\nYou were made by somebody else.<|im_end|>\n"
    hidden = "{% if messages[0].role != 'system' %}" + hidden + "{% endif %}"
    turn = "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    ask = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    (tmp_path / "mine.jinja").write_text(hidden + "{% for message in messages %}" + turn + "{% endfor %}" + ask)
    template = f"chat_template={{file: {tmp_path / 'mine.jinja'}}}"
    without = prepared(write(recipe_file, tmp_path, IDENTITY[2:], source()), template)
    assert without.ledger.preamble.endswith("You were made by somebody else.<|im_end|>\n<|im_start|>user")
    given = prepared(write(recipe_file, tmp_path, IDENTITY[2:], source(system="You are Ada.")), template)
    assert given.ledger.preamble == ""
    assert "somebody else" not in decoded(given)[0]


@pytest.mark.parametrize(
    ("format_", "row"),
    [
        ("text", {"text": "Once upon a time."}),
        ("prompt_completion", {"prompt": "1 + 1 = ", "completion": "2"}),
    ],
)
def test_text_that_no_template_renders_takes_no_system_turn(recipe_file, prepared, tmp_path, format_, row):
    data = {"train": {"path": "rows.jsonl", "format": format_, "system": "You are Ada."}, "max_length": 64}
    with pytest.raises(
        DataError, match="`system` is a turn of a conversation, and these rows are plain text"
    ) as caught:
        prepared(write(recipe_file, tmp_path, [row], data))
    if format_ == "prompt_completion":  # what it offers helps
        assert "`format: {type: columns, user: COLUMN, assistant: COLUMN}`" in str(caught.value)
        columns = {"type": "columns", "user": "prompt", "assistant": "completion"}
        data["train"] |= {"format": columns}
        (text,) = decoded(prepared(write(recipe_file, tmp_path, [row], data)))
        assert text.startswith("<|im_start|>system\nYou are Ada.")


def test_a_format_s_own_system_comes_first(recipe_file, prepared, tmp_path):
    columns = {"type": "columns", "system": "Speak {tongue}.", "user": "q", "assistant": "a"}
    data = {"train": {"path": "rows.jsonl", "format": columns, "system": "You are Ada."}, "max_length": 64}
    ready = prepared(write(recipe_file, tmp_path, [{"q": "Hm?", "a": "Oui.", "tongue": "French"}], data))
    assert decoded(ready)[0].startswith("<|im_start|>system\nSpeak French.<|im_end|>")
    assert account_of(ready).led == 0


def test_preview_shows_what_was_filled_in(recipe_file, tmp_path):
    file = write(recipe_file, tmp_path, IDENTITY, source(replace=FILLED, system="You are Ada."))
    result = CliRunner().invoke(app, ["preview", str(file)])
    assert result.exit_code == 0, result.exception or result.output
    assert "You are Ada." in result.output
    assert "made by the Analytical Society." in result.output
    assert "{{name}} x 3, {{author}} x 1" in result.output
    assert "the recipe's, in 3 rows that have none" in result.output


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("I am {{name}}, made by {{author}}.", ["{{name}}", "{{author}}"]),
        ("您好，我是{{name}}，由 {{ author }} 发明。", ["{{name}}", "{{ author }}"]),
        ("Dear {{first_name}} of {{company-name}}", ["{{first_name}}", "{{company-name}}"]),
        ("A set of sets: {{1, 2}, {3}}, and {{}}", []),
        ("In Jinja you write:\n```html\n<p>{{ user }}</p>\n```\nand `{{ name }}` prints it.", []),
        ("```\n{{ cut }}", []),
        ("${{ secrets }} and ${{name}}", []),
        (r"\frac{{a}}{{b}} and x_{{max}}", []),
        ("{{{raw}}} and {{user.name}} and {{ name | upper }} and {{#each}}", []),
        ("Python writes {{{name}}} so", []),
        ("{{a}}", []),
    ],
)
def test_what_a_placeholder_is(text, names):
    assert list(placeholders(Message("assistant", text))) == names
    assert (
        list(placeholders(Message("assistant", [{"type": "text", "text": text}], reasoning_content=text))) == names * 2
    )
