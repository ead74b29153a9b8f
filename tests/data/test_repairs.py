"""Rows that a chat template refuses: left out where the recipe says so, or repaired by name, and counted."""

import pytest
from conftest import TINY, write_rows

import sftplug
from sftplug import Conversation, DataError, Message, RowError, ToolCall
from sftplug.data.repairs import Repairs

STRICT = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('No system role') }}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SYSTEM, USER, MORE, REPLY = (
    {"role": role, "content": text}
    for role, text in (("system", "Be brief."), ("user", "Hm."), ("user", "Why?"), ("assistant", "So."))
)
GOOD = {"messages": [USER, REPLY]}


@pytest.fixture
def ready(tmp_path):
    """Return a function that prepares rows under a template that refuses much."""

    def prepare(rows, **sections):
        (tmp_path / "strict.jinja").write_text(STRICT)
        train = {"path": str(write_rows(tmp_path / "rows.jsonl", rows))}
        recipe = {"model": {"build": TINY}, "chat_template": {"file": str(tmp_path / "strict.jinja")}}
        more = {"train": train, **sections.pop("data", {})}
        return sftplug.prepare(sftplug.load({**recipe, "data": more, **sections}))

    return prepare


def texts(prepared):
    return [prepared.tokenizer.decode(row["input_ids"]) for row in prepared.train]


def test_a_row_that_the_template_refuses_is_left_out_like_any_bad_row(ready):
    data = [GOOD] * 8 + [{"messages": [USER, MORE, REPLY]}] * 2
    prepared = ready(data, data={"on_bad_row": "skip"})
    account = prepared.ledger.splits["train"][0]
    assert (account.kept, account.dropped) == (8, {"refused": 2})
    (group,) = account.groups["refused"].largest()
    assert group.sentence().startswith("2 rows (rows.jsonl:9, rows.jsonl:10): chat template 'file' refuses")
    with pytest.raises(DataError, match=r"2 of 10 rows .* would be dropped \(20\.0%\), 10\.0% are allowed"):
        ready(data, data={"on_bad_row": "skip", "max_dropped": "10%"})


def test_what_is_offered_was_tried_on_the_rows(ready):
    with pytest.raises(DataError) as caught:
        ready([GOOD, {"messages": [USER, MORE, REPLY]}, {"messages": [SYSTEM, USER, REPLY]}])
    alternate, system = str(caught.value).split("    Way out: ")[1:]
    assert "`spans.merge_turns: true`" in alternate
    assert "spans.system" not in alternate
    assert "`spans.system: into_user`" in system
    assert "`spans.system: drop`" in system
    assert "merge_turns" not in system
    assert "`data.on_bad_row: skip`" in system


def test_repairs_are_done_to_every_row_and_counted(ready):
    data = [GOOD, {"messages": [USER, MORE, REPLY]}, {"messages": [SYSTEM, USER, REPLY]}]
    prepared = ready(data, spans={"merge_turns": True, "system": "into_user"})
    assert texts(prepared) == [
        f"<|im_start|>user\n{said}<|im_end|>\n<|im_start|>assistant\nSo.<|im_end|>\n"
        for said in ("Hm.", "Hm.\n\nWhy?", "Be brief.\n\nHm.")
    ]
    account = prepared.ledger.splits["train"][0]
    assert account.noted == {"turns merged": 1, "system turn into user": 1}
    dropped = ready(data[2:], spans={"system": "drop"})
    assert texts(dropped) == texts(ready([GOOD]))
    assert dropped.ledger.splits["train"][0].noted == {"system turn dropped": 1}


def test_a_system_turn_that_nobody_can_say_makes_a_bad_row(ready):
    with pytest.raises(DataError, match=r"rows\.jsonl:1: messages: end in a system turn, which no user's turn follows"):
        ready([{"messages": [USER, REPLY, SYSTEM]}], spans={"system": "into_user"})


MERGE = Repairs(merge_turns=True)
CALL, OTHER = ToolCall("f", {}), ToolCall("g", {})


def said(*messages, completion_from=None):
    return Conversation(tuple(messages), completion_from=completion_from)


def test_turns_are_merged_only_where_nothing_changes_its_order():
    ask, call, answer = Message("user", "a"), Message("assistant", None, (CALL,)), Message("tool", "b")
    reply = Message("assistant", "c")
    merged, done = MERGE.apply(said(ask, reply, call, Message("assistant", None, (OTHER,)), answer, answer, reply))
    assert merged.messages == (ask, Message("assistant", "c", (CALL, OTHER)), answer, answer, reply)
    assert done == [("turns merged", "neighbouring turns of one role are one turn (2 fewer)")]
    for apart in (
        said(ask, call, reply),  # a text behind a call
        said(ask, reply, Message("assistant", "d", reasoning_content="hm")),
        said(ask, reply, Message("assistant", "d", weight=0.0)),
        said(Message("user", "a", name="ada"), Message("user", "a", name="bob"), reply),
        said(ask, ask, reply, completion_from=1),  # where the completion begins
    ):
        assert MERGE.apply(apart) == (apart, [])


def test_what_is_not_text_alone_keeps_its_parts():
    parts = [{"type": "text", "text": "see", "weight": 0.5}]
    merged, _ = MERGE.apply(said(Message("user", "a"), Message("user", parts), Message("user", None)))
    text = {"type": "text"}
    assert merged.messages[0].content == [{**text, "text": "a"}, {**text, "text": "\n\n"}, *parts]


def test_indices_of_the_completion_follow():
    system, ask, reply = Message("system", "s"), Message("user", "a"), Message("assistant", "b")
    for kind, first in (("into_user", "s\n\na"), ("drop", "a")):
        moved, _ = Repairs(kind).apply(said(system, ask, reply, completion_from=2))
        assert (moved.completion_from, moved.messages) == (1, (Message("user", first), reply))
    with pytest.raises(RowError, match="end in a system turn"):
        Repairs("into_user").apply(said(ask, reply, system))
    plain = Conversation((Message("user", "a"), Message("user", "b")), plain=True)
    assert MERGE.apply(plain) == (plain, [])
