"""From rows to labelled tokens: what is trained, what is refused, and that nothing is lost without a word."""

import re

import pytest
from conftest import rows, write_rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from sftplug import DataError, MaskError, ModelError
from sftplug.cli import app

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "First."},
    {"role": "user", "content": "Two?"},
    {"role": "assistant", "content": "Second."},
]


def trained(prepared, row=0):
    """Return the decoded runs of trained tokens of a row."""
    example = prepared.train[row]
    runs, current = [], []
    for token, label in zip(example["input_ids"], example["labels"], strict=True):
        assert label in (token, -100)
        if label != -100:
            current.append(token)
        elif current:
            runs.append(prepared.tokenizer.decode(current))
            current = []
    return [*runs, *([prepared.tokenizer.decode(current)] if current else [])]


@pytest.mark.parametrize(
    ("masking", "expected"),
    [
        ("assistant", ["First.<|im_end|>", "Second.<|im_end|>"]),
        ("last_assistant", ["Second.<|im_end|>"]),
        ("completion", ["Second.<|im_end|>"]),
        ({"turns": 1}, ["Second.<|im_end|>"]),
        ({"turns": {"last": 2}}, ["First.<|im_end|>", "Second.<|im_end|>"]),
        (["assistant", {"end_of_turn": "mask"}], ["First.", "Second."]),
        (["assistant", {"regex": "Sec"}], ["First.<|im_end|>", "ond.<|im_end|>"]),
        ({"roles": ["system"]}, ["Be brief."]),
        ("last_assistant + completion", ["Second.<|im_end|>"]),
    ],
)
def test_each_strategy_trains_its_tokens_and_no_other(recipe_file, prepared, masking, expected):
    ready = prepared(recipe_file(data=[{"messages": CHAT}], masking=masking))
    assert trained(ready) == expected


def test_all_trains_every_token_of_text_with_its_end(recipe_file, prepared):
    sections = {"data": {"train": {"path": "rows.jsonl", "format": "text"}}, "masking": "all", "chat_template": None}
    file = recipe_file()
    write_rows(file.parent / "rows.jsonl", [{"text": "Once upon a time."}])
    import yaml

    recipe = {**yaml.safe_load(file.read_text()), **sections}
    file.write_text(yaml.safe_dump({key: value for key, value in recipe.items() if value is not None}))
    ready = prepared(file)
    assert trained(ready) == ["Once upon a time.<|endoftext|>"]
    assert ready.train[0]["labels"] == ready.train[0]["input_ids"]


def test_weights_that_are_not_0_or_1_reach_the_dataset(recipe_file, prepared):
    messages = [*CHAT[:2], {**CHAT[2], "weight": 0.25}, CHAT[3], {**CHAT[4], "train": False}]
    ready = prepared(recipe_file(data=[{"messages": messages}], masking=["assistant", "message_weights"]))
    example = ready.train[0]
    assert sorted(set(example["weights"])) == [0.0, 0.25]
    assert trained(ready) == ["First.<|im_end|>"]
    assert ready.ledger.splits["train"][0].trained == 0.25 * sum(label != -100 for label in example["labels"])
    plain = prepared(recipe_file(data=[{"messages": CHAT}]))
    assert plain.train.column_names == ["input_ids", "labels"]


def test_rows_that_do_not_fit_are_all_named_and_may_be_skipped(recipe_file, prepared):
    bad = [
        {"messages": [{"role": "user", "content": 3}]},
        {"messages": []},
        {"messages": [{"role": "usr", "content": "x"}, CHAT[2]]},
        {"messages": [{"role": "user", "content": "x", "weight": "1"}, CHAT[2]]},
        {"msgs": []},
    ]
    file = recipe_file(data=[*rows(2), *bad])
    with pytest.raises(DataError) as caught:
        prepared(file)
    text = str(caught.value)
    assert text.startswith("5 of 7 rows of ")
    assert "rows.jsonl:3: messages[0].content: must be text or a list of parts, not a number" in text
    assert "rows.jsonl:4: messages: holds no message" in text
    assert "rows.jsonl:5: messages[0].role: nobody knows the role 'usr'. Did you mean 'user'?" in text
    assert "rows.jsonl:6: messages[0].weight: must be a number of at least 0, not '1'" in text
    assert "rows.jsonl:7: messages: is missing. Did you mean 'msgs'? The row has: msgs." in text
    assert text.endswith("Fix them, or set `data.on_bad_row: skip`.")
    skipped = prepared(file, "data.on_bad_row=skip")
    account = skipped.ledger.splits["train"][0]
    assert (account.read, account.kept, dict(account.dropped)) == (7, 2, {"bad": 5})


def test_one_reason_of_many_rows_is_said_once(recipe_file, prepared):
    unknown = [{"messages": [{"role": f"role{index}", "content": "x"}, CHAT[2]]} for index in range(25)]
    file = recipe_file(data=[*[{"messages": []}] * 31, *unknown, *rows(2)])
    with pytest.raises(DataError) as caught:
        prepared(file)
    head, empty, roles, way, remedy = str(caught.value).splitlines()
    assert head.startswith("56 of 58 rows of ")
    assert empty == "  31 rows (rows.jsonl:1, rows.jsonl:2, rows.jsonl:3, …): messages: holds no message"
    nobody = "messages[0].role: nobody knows the role 'role0'."
    assert roles.startswith(f"  25 rows (rows.jsonl:32, rows.jsonl:33, rows.jsonl:34, …): {nobody}")
    assert way.startswith("  Way out, if that is what it means: in the format, `roles: {role0: user, role1: user, ")
    assert remedy == "Fix them, or set `data.on_bad_row: skip`."
    assert len(prepared(file, "data.on_bad_row=skip").train) == 2


TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
SILENT = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}" + (
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def refused(file, *overrides):
    """Return what `sftplug check` says of rows that it refuses; an empty text where it takes them."""
    result = CliRunner().invoke(app, ["check", str(file), *overrides])
    return "" if result.exit_code == 0 else str(result.exception)


def test_every_way_out_that_is_offered_lets_the_rows_through(recipe_file, tmp_path):
    (tmp_path / "silent.jinja").write_text(SILENT)
    with_tools = [{**row, "tools": [{**TOOL, "function": {"name": f"f{index}"}}]} for index, row in enumerate(rows(30))]
    thinking = [{"messages": [CHAT[1], {**CHAT[2], "reasoning_content": f"Hm {index}."}]} for index in range(4)]
    both = [{**row, "tools": [TOOL]} for row in thinking]
    file = recipe_file(data=[*rows(3), *with_tools, *thinking, *both], chat_template={"file": "silent.jinja"})
    said = refused(file, "data.max_length=1024")
    assert said.splitlines()[0].startswith("38 of 41 rows of ")
    # A row with two reasons counts for each of them.
    assert "  34 rows (rows.jsonl:4, rows.jsonl:5, rows.jsonl:6, …): the tools of the row (f0) are not in" in said
    assert "  8 rows (rows.jsonl:34, rows.jsonl:35, rows.jsonl:36, …): message 1 (assistant): reasoning_content" in said
    chatml = "`chat_template: chatml` renders them (tried on 20 of these rows and 3 of the others)"
    assert f"Way out: {chatml}, or `spans.dropped_tools: warn` trains without the tools." in said
    assert "the tools of the row" not in refused(file, "data.max_length=1024", "spans.dropped_tools=warn")
    assert "reasoning_content" not in refused(file, "data.max_length=1024", "spans.dropped_reasoning=warn")
    assert refused(file, "data.max_length=1024", "chat_template=chatml") == ""
    # `plain` renders neither tools nor thoughts, and llama3's tokens the tokenizer lacks.
    assert "chat_template: plain" not in said
    assert "chat_template: llama3" not in said


def test_no_template_is_offered_that_would_refuse_other_rows(recipe_file, tmp_path):
    refuses = "{% if messages[0].content == 'One?' %}{{ raise_exception('not this one') }}{% endif %}"
    (tmp_path / "mine.jinja").write_text(refuses + SILENT)
    # Rows that pass here; of the others `plain` alone renders the first, and `chatml` alone the second.
    late = {"messages": [CHAT[3], {"role": "system", "content": "Be brief."}, CHAT[4]]}
    answered = {"messages": [CHAT[3], CHAT[4], {"role": "tool", "content": "2"}, CHAT[4]]}
    file = recipe_file(data=[late, answered, {"messages": CHAT[1:3]}], chat_template={"file": "mine.jinja"})
    said = refused(file)
    assert "rows.jsonl:3: chat template 'file' refuses a conversation of user, assistant: not this one" in said
    assert "Way out" not in said
    assert said.endswith("Fix them, choose another chat template, or leave them out with `data.on_bad_row: skip`.")


def test_a_row_without_an_assistant_turn_is_named(recipe_file, prepared):
    file = recipe_file(data=[*rows(1), {"messages": CHAT[:2]}])
    with pytest.raises(DataError, match=r"rows\.jsonl:2: has no assistant turn\."):
        prepared(file)
    assert len(prepared(file, "data.on_empty=drop").train) == 1


def test_long_rows_are_dropped_and_counted_or_refused(recipe_file, prepared):
    long = {"messages": [CHAT[1], {"role": "assistant", "content": "word " * 500}]}
    file = recipe_file(data=[*rows(3), long])
    account = prepared(file, "data.max_loss=1").ledger.splits["train"][0]
    assert (account.kept, dict(account.dropped)) == (3, {"too long": 1})
    assert account.reasons["too long"][0].startswith("rows.jsonl:4: ")
    with pytest.raises(DataError, match=r"1 of 4 rows of .* are too long:\n  rows\.jsonl:4: \d+ tokens, 256 allowed"):
        prepared(file, "data.too_long=error")
    with pytest.raises(
        DataError, match=r"no row of the split 'train' is left: 4 too long\. .* Lengths in tokens: 50% up to "
    ):
        prepared(file, "data.max_length=4")


def test_a_base_model_without_a_template_is_told_which_to_choose(recipe_file, prepared):
    with pytest.raises(ModelError, match=r"the model's tokenizer has no chat template, as base models do not"):
        prepared(recipe_file(chat_template="tokenizer"))
    with pytest.raises(ModelError, match=r"'llama3' writes <\|start_header_id\|>.* would cut into pieces"):
        prepared(recipe_file(chat_template="llama3"))


def test_a_template_that_cannot_be_masked_is_refused_before_weights(recipe_file, prepared, tmp_path):
    (tmp_path / "no_stop.jinja").write_text(
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    file = recipe_file(chat_template={"file": "no_stop.jinja"}, data=rows(1))
    with pytest.raises(MaskError) as caught:
        prepared(file)
    assert "rows.jsonl:1: message 1: no token marks its end; the model would never learn to stop." in str(caught.value)
    assert "`spans.missing_stop: append_eos` adds the tokenizer's EOS" in str(caught.value)
    shown = dict(caught.value.picture)
    assert shown["It is red."] == "bold red"
    assert "dim" in shown.values()
    ready = prepared(file, "spans.missing_stop=append_eos")
    assert trained(ready) == [rows(1)[0]["messages"][1]["content"] + "<|endoftext|>"]
    assert prepared(file, "spans.missing_stop=warn").ledger.splits["train"][0].noted["no_stop"] == 1


def test_text_that_brings_its_own_end_gets_no_second_one(recipe_file, prepared):
    data = [{"prompt": "Say hi.", "completion": f"hi{end}"} for end in ("", "<|endoftext|>", "<|endoftext|> \n")]
    ready = prepared(recipe_file(data=data), "data.train.format={type: prompt_completion, as: text}")
    assert [trained(ready, row) for row in range(3)] == [["hi<|endoftext|>"]] * 3
    plain, *_ = ids = [row["input_ids"] for row in ready.train]
    assert ids[1] == plain
    assert ids[2][: len(plain)] == plain
    assert ready.ledger.splits["train"][0].noted["stop of its own"] == 2


def test_a_share_can_be_held_out_and_nothing_is_in_both(recipe_file, prepared):
    file = recipe_file(data=rows(60))
    file.write_text(file.read_text().replace("max_length: 256", "max_length: 256\n  eval_fraction: 0.25"))
    ready = prepared(file)
    train, held_out = ({tuple(row["input_ids"]) for row in split} for split in (ready.train, ready.eval))
    assert len(train) + len(held_out) == 60
    assert 5 <= len(held_out) <= 25
    assert not train & held_out


MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "wizard"]), "content": st.text(max_size=30) | st.none()}
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.lists(st.fixed_dictionaries({"messages": st.lists(MESSAGE, max_size=4)}), min_size=1, max_size=8))
def test_rows_in_are_rows_out_and_rows_accounted_for(recipe_file, prepared, data):
    good = rows(1)
    file = recipe_file(data=[*good, *data])
    try:
        ready = prepared(file, "data.on_bad_row=skip", "data.on_empty=drop", "data.max_length=48", "data.max_loss=1")
    except MaskError:
        return  # the conversation itself has no mask; that is refused for the whole run, with every row named
    account = ready.ledger.splits["train"][0]
    assert account.read == len(data) + 1
    assert account.balanced()
    assert account.kept + account.added == len(ready.train)


def test_losing_more_than_the_recipe_allows_to_length_stops_the_run(recipe_file, prepared):
    long = {"messages": [CHAT[1], {"role": "assistant", "content": "word " * 500}]}
    file = recipe_file(data=[*rows(9), long])
    with pytest.raises(DataError) as caught:
        prepared(file)
    text = str(caught.value)
    assert "1 of 10 rows of " in text
    assert "% of its trained tokens would be lost, 1.0% are allowed. Lengths in tokens: 50% up to " in text
    ways = r"Set `data\.max_loss: (.+?)` to do without them, or `data\.max_length: (\d+)`"
    loss, length = re.search(ways, text).groups()
    assert len(prepared(file, f"data.max_loss={loss}").train) == 9
    assert len(prepared(file, f"data.max_length={length}").train) == 10


def test_the_length_that_is_advised_keeps_enough_and_no_more(recipe_file, prepared):
    def reply(words):
        return {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "word " * words}]}

    # 99 % of the rows fit as it is, and most of what is trained lies in the others.
    file = recipe_file(data=[*rows(300), reply(390), reply(150), reply(400)])
    with pytest.raises(DataError, match="3 of 303 rows") as caught:
        prepared(file, "data.max_length=128", "data.max_loss=20%")
    length = int(re.search(r"`data\.max_length: (\d+)` if the model takes", str(caught.value))[1])
    assert len(prepared(file, f"data.max_length={length}", "data.max_loss=20%").train) == 302
    with pytest.raises(DataError):
        prepared(file, f"data.max_length={length - 1}", "data.max_loss=20%")
