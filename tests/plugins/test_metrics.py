"""Built-in metrics, case by case: what is right, what is not, and what of nothing."""

import pytest
from pydantic import ValidationError

from sftplug import Decoded, Message, Reply, RowError, ToolCall
from sftplug_metrics.calls import ToolCallsEqual
from sftplug_metrics.structure import JsonEqual, JsonValid, Regex
from sftplug_metrics.words import Contains, ExactMatch, TokenF1


def score(metric, text, reference=""):
    (found,) = metric.scores([Reply(text, reference, "?", "rows.jsonl:1")])
    return found


CASES = [
    (ExactMatch(), " It is 42.\n", "It is 42.", 1),
    (ExactMatch(), "it is 42.", "It is 42.", 0),
    (ExactMatch(), "", " ", 1),
    (ExactMatch(), "", "It", 0),
    (ExactMatch(normalize="none"), "42 ", "42", 0),
    (ExactMatch(normalize="squad"), "The  Answer, is: 42!", "answer is a 42", 1),
    (ExactMatch(normalize="squad"), "The a. an!", "", 1),
    (ExactMatch(normalize="squad"), "theory", "ory", 0),
    (Contains(), "It is 42, I think.", " 42 ", 1),
    (Contains(), "It is Forty-two.", "forty-two", 0),
    (Contains(ignore_case=True), "It is Forty-two.", "forty-two", 1),
    (Contains(), "It is 42.", "", 0),
    (Contains(), " ", "", 1),
    (Contains(text="sorry"), "I am sorry.", "42", 1),
    (Contains(text="sorry"), "It is 42.", "sorry", 0),
    (TokenF1(), "The blue sky", "blue blue sky", 0.8),
    (TokenF1(), "Blue, sky!", "a blue sky", 1),
    (TokenF1(), "red", "blue", 0),
    (TokenF1(), "", "blue", 0),
    (TokenF1(), "blue", "the", 0),
    (TokenF1(), "", "The.", 1),
    (JsonValid(), ' {"a": [1, null]}\n', "", 1),
    (JsonValid(), "7", "", 1),
    (JsonValid(), "", "", 0),
    (JsonValid(), "{'a': 1}", "", 0),
    (JsonValid(), '{"a": NaN}', "", 0),
    (JsonValid(), '{"a": 1} so', "", 0),
    (JsonValid(), "[" * 100_000, "", 0),
    (JsonValid(keys=["a"]), '{"a": 1, "b": 2}', "", 1),
    (JsonValid(keys=["a", "c"]), '{"a": 1, "b": 2}', "", 0),
    (JsonValid(keys=["a"]), '["a"]', "", 0),
    (JsonValid(), "```json\n{}\n```", "", 0),
    (JsonValid(fenced=True), "```json\n{}\n```", "", 1),
    (JsonValid(fenced=True), "{}", "", 1),
    (JsonValid(fenced=True), "Here:\n```json\n{}\n```", "", 0),
    (JsonEqual(), '{"b": 2.0, "a": "é"}', '{"a": "\\u00e9", "b": 2}', 1),
    (JsonEqual(), "[1, 2]", "[2, 1]", 0),
    (JsonEqual(), '{"a": true}', '{"a": 1}', 0),
    (JsonEqual(), '{"a": 1, "b": 2}', '{"a": 1}', 0),
    (JsonEqual(), "It is {}", "{}", 0),
    (JsonEqual(fenced=True), "```\n[{}]\n```", "[{}]", 1),
    (Regex(pattern="[0-9]+"), "It is 42.", "", 1),
    (Regex(pattern="[0-9]+"), "", "42", 0),
    (Regex(pattern="#### (.*)", compare=True), "6 * 7\n#### 1, no:\n#### 42", "#### 42", 1),
    (Regex(pattern="[0-9]+", compare=True), "It is 41.", "42", 0),
    (Regex(pattern="(x)?[0-9]+", compare=True), "It is 42.", "42", 1),
    (Regex(pattern="[0-9]+", compare=True), "", "42", 0),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0].type}: {case[1][:20]!r}, {case[2]!r}")
def test_scores(case):
    metric, text, reference, expected = case
    assert score(metric, text, reference) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        (JsonEqual(), "is not a JSON text: Expecting value: line 1 column 1 (char 0)"),
        (Regex(pattern="[0-9]+", compare=True), "has nothing that '[0-9]+' finds"),
    ],
    ids=["json_equal", "regex"],
)
def test_a_row_by_which_nothing_can_be_scored_is_refused(metric, reason):
    with pytest.raises(RowError) as caught:
        score(metric, "{}", "It is so.")
    assert (caught.value.field, caught.value.reason) == ("reference", reason)


def test_an_expression_that_is_none_is_refused_when_the_recipe_is_read():
    with pytest.raises(ValidationError, match=r"is not a regular expression: unterminated character set at position 0"):
        Regex(pattern="[0-9")


def called(*calls, problem=""):
    calls = tuple(ToolCall(name, arguments) for name, arguments in calls)
    return Decoded(Message("assistant", "I look.", calls), "", True, True, problem)


LOOK, READ = ("look", {"at": "sky", "depth": 2}), ("read", {})
CALL_CASES = [
    ((LOOK,), (("look", '{"depth": 2.0, "at": "sky"}'),), {}, 1),
    ((LOOK,), (("look", {"at": "sky", "depth": "2"}),), {}, 0),
    ((LOOK,), (("see", LOOK[1]),), {}, 0),
    ((LOOK,), (), {}, 0),
    ((), (LOOK,), {}, 0),
    ((), (), {}, 1),
    ((LOOK, READ), (READ, LOOK), {}, 0),
    ((LOOK, READ), (READ, LOOK), {"any_order": True}, 1),
    ((LOOK, LOOK), (READ, LOOK), {"any_order": True}, 0),
    ((LOOK, LOOK), (LOOK,), {"any_order": True}, 0),
]


@pytest.mark.parametrize("case", CALL_CASES, ids=str)
def test_calls_are_compared_by_name_and_by_what_the_arguments_say(case):
    said, wanted, options, expected = case
    replies = [Reply("", "", "?", "a:1", decoded=called(*said), decoded_reference=called(*wanted))]
    assert ToolCallsEqual(**options).scores(replies) == [expected]


def test_half_a_call_is_wrong_and_a_row_that_cannot_be_read_back_is_refused():
    half = called(problem="'<tool_call>' stands in it.")
    metric = ToolCallsEqual()
    assert metric.scores([Reply("", "", "?", "a:1", decoded=half, decoded_reference=called())]) == [0]
    with pytest.raises(RowError, match=r"cannot be read back: '<tool_call>' stands in it$"):
        metric.scores([Reply("", "", "?", "a:1", decoded=called(), decoded_reference=half)])
    with pytest.raises(RowError, match="is no reply that the run's chat template writes after such a prompt"):
        metric.scores([Reply("", "", "?", "a:1")])
