"""No answer is cut but by `truncate`; what a policy leaves out is counted."""

import pytest
from conftest import rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sftplug import Conversation, DataError, LongRow, Message, PluginError, RecipeError
from sftplug_length import DropOldestTurns, SplitAtTurns, Truncate


def chat(turns, words=6, system=True):
    messages = [{"role": "system", "content": "Be brief."}] if system else []
    for turn in range(turns):
        messages += [
            {"role": "user", "content": f"Question {turn}?"},
            {"role": "assistant", "content": f"Answer {turn}: " + "word " * words},
        ]
    return {"messages": messages}


def texts(ready):
    return [ready.tokenizer.decode(row["input_ids"]) for row in ready.train]


def trained(ready):
    return [ready.tokenizer.decode([label for label in row["labels"] if label != -100]) for row in ready.train]


def long_row(*sizes, limit, head=1):
    roles = ["system"] * head + ["user", "assistant"] * len(sizes)
    messages = tuple(Message(role, str(index)) for index, role in enumerate(roles))
    counts = [2] * head + [count for size in sizes for count in (1, size - 1)]
    return LongRow(Conversation(messages), counts, sum(counts), limit)


def kept(conversations):
    return [[int(message.content) for message in conversation.messages] for conversation in conversations]


def test_the_oldest_exchanges_go_first_and_the_system_turn_and_the_last_stay():
    assert kept(DropOldestTurns().shorten(long_row(5, 5, 5, limit=12))) == [[0, 3, 4, 5, 6]]
    assert kept(DropOldestTurns().shorten(long_row(5, 5, 5, limit=8))) == [[0, 5, 6]]
    assert kept(DropOldestTurns().shorten(long_row(5, 5, 50, limit=8))) == [
        [0, 5, 6]
    ]  # comes back, and then is dropped
    assert kept(DropOldestTurns().shorten(long_row(50, limit=8))) == []


def test_stretches_hold_whole_exchanges_and_the_system_turn():
    assert kept(SplitAtTurns().shorten(long_row(5, 5, 5, limit=12))) == [[0, 1, 2, 3, 4], [0, 5, 6]]
    assert kept(SplitAtTurns().shorten(long_row(50, limit=8))) == []


def test_the_completion_moves_with_the_messages_before_it():
    row = long_row(5, 5, limit=8)
    conversation = Conversation(row.conversation.messages, completion_from=4)
    (short,) = DropOldestTurns().shorten(LongRow(conversation, row.message_tokens, row.length, row.limit))
    assert short.messages[short.completion_from].content == "4"


def test_truncate_keeps_either_side():
    assert Truncate().shorten(long_row(5, limit=4)) == slice(0, 4)
    assert Truncate(side="start").shorten(long_row(5, limit=4)) == slice(3, 7)


def test_rows_are_rendered_anew_without_their_oldest_turns(recipe_file, prepared):
    file = recipe_file(data=[chat(6), chat(1)])
    ready = prepared(file, "data.too_long=drop_oldest_turns", "data.max_length=100", "data.max_loss=1")
    account = ready.ledger.splits["train"][0]
    assert account.balanced()
    assert (account.kept, dict(account.noted)) == (2, {"shortened": 1})
    shortened = next(text for text in texts(ready) if "Question 5?" in text)
    assert shortened.startswith("<|im_start|>system\nBe brief.<|im_end|>")
    assert "Question 0?" not in shortened
    assert account.lost > 0
    assert all(len(row["input_ids"]) <= 100 for row in ready.train)


def test_a_row_becomes_several_at_its_turns_and_no_answer_is_lost(recipe_file, prepared):
    file = recipe_file(data=[chat(6)])
    ready = prepared(file, "data.too_long=split_at_turns", "data.max_length=120")
    account = ready.ledger.splits["train"][0]
    assert account.balanced()
    assert account.kept == 1
    assert account.added == len(ready.train) - 1 > 0
    assert account.lost == 0
    whole = prepared(file, "data.max_length=1000")
    assert "".join(trained(ready)) == "".join(trained(whole))


def test_truncate_cuts_tokens_and_says_so(recipe_file, prepared):
    file = recipe_file(data=[chat(6)])
    whole = prepared(file, "data.max_length=1000").train[0]
    for side, kept_part in (("end", slice(0, 50)), ("start", slice(-50, None))):
        ready = prepared(file, f"data.too_long={{truncate: {side}}}", "data.max_length=50")
        assert ready.train[0]["input_ids"] == whole["input_ids"][kept_part]
        assert ready.train[0]["labels"] == whole["labels"][kept_part]
        assert ready.ledger.splits["train"][0].noted["cut"] == 1


def test_error_refuses_every_row_that_is_too_long(recipe_file, prepared):
    with pytest.raises(DataError) as caught:
        prepared(recipe_file(data=[chat(6), chat(1)]), "data.too_long=error", "data.max_length=100")
    assert "1 of 2 rows of" in str(caught.value)
    assert "rows.jsonl:1: " in str(caught.value)
    assert "`data.max_length`" in str(caught.value)


def test_a_policy_of_no_such_name_is_refused(recipe_file, prepared):
    with pytest.raises(RecipeError, match=r"'truncat' is not installed\. Did you mean 'truncate'"):
        prepared(recipe_file(), "data.too_long=truncat")


def test_a_policy_that_does_not_shorten_is_named(recipe_file, prepared):
    plugin = recipe_file().parent / "keep.py"
    plugin.write_text(
        "from sftplug import LengthPolicy, hookimpl\n\n\nclass Keep(LengthPolicy):\n    type: str = 'keep'\n\n"
        "    def shorten(self, row):\n        return [row.conversation]\n\n\n"
        "@hookimpl\ndef sftplug_length_policies():\n    return [Keep]\n"
    )
    with pytest.raises(
        PluginError, match=r"length policy 'keep' of plugin keep \(file\): shorten\(\) must return conv"
    ):
        prepared(recipe_file(data=[chat(6)], plugins=["./keep.py"]), "data.too_long=keep", "data.max_length=50")


POLICIES = ["drop", "drop_oldest_turns", "split_at_turns", "truncate", "{truncate: start}"]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(0, 40), st.booleans()), min_size=1, max_size=6),
    st.sampled_from(POLICIES),
    st.sampled_from(["none", "rows"]),
)
def test_whatever_the_policy_every_row_is_accounted_for(recipe_file, prepared, shapes, policy, packing):
    data = [*rows(1), *[chat(*shape) for shape in shapes]]
    options = [f"data.too_long={policy}", "data.max_length=64", "data.max_loss=1", "data.on_empty=drop"]
    ready = prepared(recipe_file(data=data), *options, f"data.packing={packing}")
    account = ready.ledger.splits["train"][0]
    assert account.read == len(data)
    assert account.balanced()
    out = sum(map(len, ready.order)) if packing == "rows" else len(ready.train)
    assert account.kept + account.added == out
    assert account.tokens == sum(len(row["input_ids"]) for row in ready.train)
    assert all(len(row["input_ids"]) <= 64 for row in ready.train)
