"""No answer is cut but by `truncate`; what a policy leaves out is counted."""

import itertools

import pytest
from conftest import rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sftplug import Conversation, DataError, LongRow, Message, PluginError, RecipeError
from sftplug_length import Chunks, DropOldestTurns, SplitAtTurns, Truncate


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


def document(length, limit):
    return LongRow(Conversation((Message("document", "x"),), plain=True), [length], length, limit)


@given(st.integers(2, 400), st.integers(2, 60), st.integers(0, 59))
def test_chunks_cover_a_document_and_overlap_as_they_are_told(length, limit, overlap):
    overlap = min(overlap, limit - 1)
    stretches = Chunks(overlap=overlap).shorten(document(length, limit))
    assert [position for stretch in stretches for position in range(length)[stretch]][:1] == [0]
    assert stretches[-1].stop == length
    assert all(0 < stretch.stop - stretch.start <= limit for stretch in stretches)
    assert all(after.start == before.stop - overlap for before, after in itertools.pairwise(stretches))
    assert all(after.stop > before.stop for before, after in itertools.pairwise(stretches))


WORDS = " ".join(f"Sentence {index} tells of a thing." for index in range(60))


@pytest.fixture
def plain(tmp_path, recipe_file, prepared):
    """Return a function that prepares documents, rows of at most 64 tokens."""

    def prepare(*overrides, data=({"text": "Short."}, {"text": WORDS})):
        file = recipe_file(data=list(data), masking="all", chat_template="plain")
        return prepared(file, "data.train.format=text", "data.max_length=64", *overrides)

    return prepare


@pytest.mark.parametrize("overlap", [0, 1, 9])
def test_a_long_document_becomes_chunks_and_nothing_of_it_is_lost(plain, overlap):
    whole = plain("data.max_length=4096").train[1]["input_ids"]
    ready = plain(f"data.too_long={{type: chunks, overlap: {overlap}}}")
    _, *chunks = ready.train
    assert max(len(row["input_ids"]) for row in chunks) == 64
    joined = chunks[0]["input_ids"] + [token for row in chunks[1:] for token in row["input_ids"][overlap:]]
    assert joined == whole
    assert [label for row in chunks for label in row["labels"] if label != -100] == whole  # each token is trained once
    account = ready.ledger.splits["train"][0]
    assert (account.kept, account.added, account.lost) == (2, len(chunks) - 1, 0)
    assert account.noted["in chunks"] == 1
    assert ready.origins.of([1, 2]) == ["rows.jsonl:2#1", "rows.jsonl:2#2"]


def test_what_has_turns_is_not_cut_into_chunks(recipe_file, prepared):
    file = recipe_file(data=[*rows(3), chat(1, words=200)])
    with pytest.raises(DataError, match=r"1 of 4 rows .* are too long \(1 dropped\)") as caught:
        prepared(file, "data.too_long=chunks", "data.max_length=100")
    assert "chunks" not in str(caught.value)


def test_a_document_that_cannot_be_split_is_told_why_and_offered_chunks(plain):
    way = r"Plain text has no turns to part it at: `data\.too_long: chunks` makes rows of it and loses nothing\."
    for policy in ("split_at_turns", "drop_oldest_turns", "drop"):
        with pytest.raises(DataError, match=way):
            plain(f"data.too_long={policy}")
        with pytest.raises(DataError, match=way):
            plain(f"data.too_long={policy}", data=[{"text": WORDS}])


def test_a_limit_that_the_recipe_names_holds_for_what_is_cut_off_too(plain):
    assert plain("data.too_long=truncate").ledger.splits["train"][0].noted["cut"] == 1
    with pytest.raises(
        DataError, match=r"1 of 2 rows .* are too long \(1 cut\): .*% of its trained tokens would be lost, 5"
    ):
        plain("data.too_long=truncate", "data.max_loss=5%")


def test_an_overlap_of_a_whole_row_is_refused(plain):
    with pytest.raises(RecipeError, match=r"`overlap` must be less than `data\.max_length`, which is 64\. Lower it\."):
        plain("data.too_long={type: chunks, overlap: 64}")
