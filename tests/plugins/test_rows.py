"""The built-in row processors: what they keep, drop, change, and refuse."""

import json
import re

import pytest
from conftest import write_rows

from sftplug import DataError, RecipeError
from sftplug.recipe import load_recipe

COLUMNS = {"type": "columns", "user": "q", "assistant": "a"}


@pytest.fixture
def written(recipe_file, tmp_path):
    """Write a recipe whose training rows go through `process`."""

    def write(rows, process, held_out=None, format=COLUMNS, seed=0, data=None, **options):  # noqa: PLR0913
        file = recipe_file()
        write_rows(tmp_path / "rows.jsonl", rows)
        train = {"path": "rows.jsonl", "format": format, "process": process, **options}
        said = {"train": train, "on_unread_column": "report", "max_length": 512, **(data or {})}
        if held_out is not None:
            write_rows(tmp_path / "held.jsonl", held_out)
            said["eval"] = {"path": "held.jsonl", "format": format}
        head = file.read_text().split("data:")[0]
        file.write_text(
            f"{head}data: {json.dumps(said)}\nchat_template: chatml\nquantization: fp32\ntrain: {{seed: {seed}}}\n"
        )
        return file

    return write


def row(number, question="What is it?", **columns):
    return {"q": f"{question} {number}", "a": f"It is {number}.", **columns}


def kept(ready):
    """Return the numbers of the lines that are trained."""
    return [int(origin.partition(":")[2]) for origin in ready.origins.of(range(ready.train.num_rows))]


def reasons(ready, name):
    return ready.ledger.splits["train"][0].reasons[name]


def texts(ready):
    return [ready.tokenizer.decode(row) for row in ready.train["input_ids"]]


@pytest.mark.parametrize(
    ("options", "lines", "reason"),
    [
        ({"column": "lang", "keep": "en"}, [1], "lang is 'de', which is not kept"),
        ({"column": "lang", "keep": ["en", None]}, [1, 3], "lang is 'de', which is not kept"),
        ({"column": "lang", "drop": ["en", "de"]}, [3], "lang is 'en', which is dropped"),
        ({"column": "score", "at_least": 0.5}, [2], "score is 0.2, less than 0.5"),
        ({"column": "score", "at_most": 0.5}, [1, 3], "score is 0.9, more than 0.5"),
        ({"column": "good", "keep": True}, [1], "good is False, which is not kept"),
        ({"column": "a", "by": "characters", "at_least": 10}, [3], "a has 8 characters, less than 10"),
        ({"column": "a", "by": "words", "at_most": 3}, [1, 2], "a has 4 words, more than 3"),
        ({"by": "words", "at_least": 8}, [2, 3], "the row has 7 words, less than 8"),
    ],
)
def test_filter(written, prepared, options, lines, reason):
    rows = [
        {"q": "x y z", "a": "It is 1.", "lang": "en", "score": 0.2, "good": True},
        {"q": "x y z", "a": "It is 2.", "lang": "de", "score": "0.9", "good": False},
        {"q": "x y z w", "a": "It is 33 indeed.", "lang": None, "score": 0.3, "good": 1},
    ]
    ready = prepared(written(rows, {"filter": options}))
    assert kept(ready) == lines
    assert any(line.endswith(f": {reason}") for line in reasons(ready, "filter"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"column": "q"}, "has no condition: name `keep`, `drop`, `at_least` or `at_most`."),
        ({"keep": "x"}, "needs a `column`, or `by: characters`"),
        ({"by": "words", "keep": "x"}, "`keep` and `drop` list values of a column."),
        ({"column": "q", "at_least": 3, "at_most": 2}, "no row is at least 3 and at most 2. Lower `at_least`."),
    ],
)
def test_a_filter_that_means_nothing_is_refused_before_anything_is_read(written, options, said):
    with pytest.raises(RecipeError, match=r"data.train.process.*recipe.yaml") as caught:
        load_recipe(str(written([row(1)], {"filter": options})))
    assert said in str(caught.value)


def test_a_value_that_no_filter_can_judge_is_a_bad_row(written, prepared):
    with pytest.raises(DataError, match=r"filter: score: is missing. Did you mean 'scores'"):
        prepared(written([row(1, scores=2)], {"filter": {"column": "score", "at_least": 1}}))
    with pytest.raises(DataError, match="filter: score: must be a number, not 'good'"):
        prepared(written([row(1, score="good")], {"filter": {"column": "score", "at_least": 1}}))


def test_rename(written, prepared):
    rows = [{"question": "One?", "a": "Two."}, {"q": "Three?", "a": "Four."}]
    ready = prepared(written(rows, {"rename": {"columns": {"question": "q"}}}))
    assert ["One?" in texts(ready)[0], "Three?" in texts(ready)[1]] == [True, True]
    ready = prepared(written([row(1)], {"rename": {"columns": {"q": "a", "a": "q"}}}))
    assert texts(ready)[0].index("It is 1.") < texts(ready)[0].index("What is it?")
    with pytest.raises(DataError, match=r"data.train\[0\].process\[0\]: no row has the column 'qq'. .*They have: q, a"):
        prepared(written([row(1)], {"rename": {"columns": {"qq": "q"}}}))
    with pytest.raises(DataError, match="rename: a: would stand twice in the row"):
        prepared(written([row(1)], {"rename": {"columns": {"q": "a"}}}))


def test_replace_fills_in_as_the_option_of_a_source_does(written, prepared):
    rows = [{"q": "Are you {{name}}?", "a": "Yes, I am {{name}}."}, row(2)]
    by_option = prepared(written(rows, [], replace={"{{name}}": "Ada"}))
    by_processor = prepared(written(rows, {"replace": {"texts": {"{{name}}": "Ada"}}}))
    assert texts(by_option) == texts(by_processor)
    assert by_processor.ledger.splits["train"][0].processed[0].changed == 1
    message = r"process\[0\]: names '{{nmae}}', which stands in no row. Correct it, or leave it out."
    with pytest.raises(DataError, match=message):
        prepared(written(rows, {"replace": {"texts": {"{{name}}": "Ada", "{{nmae}}": "Ada"}}}))


def test_sample_draws_by_the_seed_and_keeps_the_order(written, prepared):
    rows = [row(number) for number in range(200)]
    drawn = kept(prepared(written(rows, {"sample": 20})))
    assert len(drawn) == 20
    assert drawn == sorted(drawn)
    assert max(drawn) > 100
    assert drawn == kept(prepared(written(rows, {"sample": {"n": 20}})))
    assert drawn != kept(prepared(written(rows, {"sample": 20}, seed=1)))
    own = [kept(prepared(written(rows, {"sample": {"n": 20, "seed": 3}}, seed=seed))) for seed in (0, 1)]
    assert own[0] == own[1] != drawn
    share = prepared(written(rows, {"sample": {"share": 0.25}}))
    assert 30 < len(kept(share)) < 70
    assert share.ledger.splits["train"][0].dropped["sample"] == 200 - len(kept(share))
    twice = kept(prepared(written(rows, [{"sample": {"share": 0.5}}, {"sample": {"share": 0.5}}])))
    assert 30 < len(twice) < 70  # the second does not draw what the first has drawn
    with pytest.raises(DataError, match=r"draws 300 rows, and there are 200. Lower `n`, or leave it out."):
        prepared(written(rows, {"sample": 300}))
    with pytest.raises(RecipeError, match="needs exactly one of `n`"):
        load_recipe(str(written(rows, {"sample": {"n": 3, "share": 0.5}})))


def test_dedupe_drops_what_is_equal_in_the_columns_that_count(written, prepared):
    rows = [row(1, id=1), row(1, id=2), row(2, id=3), row(1, id=1)]
    ready = prepared(written(rows, "dedupe"))
    assert kept(ready) == [1, 2, 3]
    assert reasons(ready, "dedupe") == ["rows.jsonl:4: is equal to rows.jsonl:1"]
    assert kept(prepared(written(rows, {"dedupe": {"columns": ["q", "a"]}}))) == [1, 3]
    with pytest.raises(DataError, match=r"dedupe: b: is missing. The row has: q, a, id"):
        prepared(written(rows, {"dedupe": {"columns": ["b"]}}))


LONG = (
    "The ship left the harbour before the sun had risen, and the gulls followed it out to sea, crying for the bread "
    "that the cook threw over the rail every morning; nobody aboard knew where the captain meant to take them, for he "
    "spoke to no one but the helmsman, and the helmsman, who was deaf, answered only with a nod of his old grey head."
)


def test_dedupe_finds_what_is_nearly_equal(written, prepared):
    pytest.importorskip("rensa")
    other = " ".join(reversed(LONG.split()))
    answers = [LONG, LONG.replace("bread", "loaf"), f"{LONG.upper()}!!", other, LONG.partition(";")[0]]
    rows = [{"q": "?", "a": answer} for answer in answers]
    ready = prepared(written(rows, {"dedupe": {"near": 0.8}}))
    assert kept(ready) == [1, 4, 5]
    assert reasons(ready, "dedupe")[1] == "rows.jsonl:3: is near rows.jsonl:1 (100% alike)"
    assert kept(prepared(written(rows, {"dedupe": 0.99}))) == [1, 2, 4, 5]


def test_near_needs_its_library(written, prepared, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "rensa", None)
    with pytest.raises(Exception, match=r"pip install 'sftplug\[dedupe\]'"):
        prepared(written([row(1)], {"dedupe": 0.9}))


def test_decontaminate_drops_what_is_held_out(written, prepared):
    rows = [row(1), row(2, "what IS it"), row(3), {"q": LONG, "a": "Yes."}, {"q": "So?", "a": f"They say: {LONG}"}]
    held = [{"q": "What is it? 2", "a": "it is 2"}, {"q": f"Once: {LONG}", "a": "No."}]
    ready = prepared(written(rows, "decontaminate", held))
    assert kept(ready) == [1, 3, 4, 5]
    assert reasons(ready, "decontaminate") == ["rows.jsonl:2: says the same as the held-out row held.jsonl:1"]
    ready = prepared(written(rows, {"decontaminate": 13}, held))
    assert kept(ready) == [1, 2, 3]  # what is shorter than 8 words says nothing of where it is from
    assert reasons(ready, "decontaminate")[0] == (
        "rows.jsonl:4: shares 13 words or a whole text with the held-out row held.jsonl:2"
    )
    common = [{"q": f"{LONG} {number}?", "a": "No."} for number in range(11)]
    assert kept(prepared(written(rows, {"decontaminate": 13}, common))) == [1, 2, 3, 4, 5]
    assert kept(prepared(written(rows, {"decontaminate": {"ngram": 13, "common": 11}}, common))) == [1, 2, 3]


def test_decontaminate_needs_rows_that_are_held_out(written, prepared):
    with pytest.raises(RecipeError, match=r"there are no held-out rows to compare with: name some in `data.eval`"):
        load_recipe(str(written([row(1)], "decontaminate")))
    with pytest.raises(RecipeError, match="Use `dedupe` instead: of equal rows only one is left to draw"):
        load_recipe(str(written([row(1)], "decontaminate", data={"eval_fraction": 0.5})))
    file = written([row(1)], [], [row(2)])
    text = file.read_text().replace('"held.jsonl", ', '"held.jsonl", "process": "decontaminate", ')
    file.write_text(text)
    with pytest.raises(DataError, match=r"data.eval\[0\].process\[0\]: compares with the held-out rows, and these are"):
        prepared(file)


def test_held_out_rows_are_compared_as_their_own_processors_leave_them(written, prepared):
    held = [{"question": "What is it? 1", "a": "It is 1."}]
    file = written([row(1), row(2)], "decontaminate", held)
    text = file.read_text().replace(
        '"held.jsonl", ', '"held.jsonl", "process": {"rename": {"columns": {"question": "q"}}}, '
    )
    file.write_text(text)
    assert kept(prepared(file)) == [2]


def said(name, parent, text, **more):
    role = "assistant" if name.startswith("a") else "prompter"
    return {"message_id": name, "parent_id": parent, "text": text, "role": role, "rank": None, "lang": "en", **more}


TABLE = [
    said("a2", "q1", "Ask him.", rank=1),
    said("q1", None, "Far?"),
    said("a3", "q1", "A mile.", rank=0),
    said("q4", "a3", "By foot?"),
    said("a5", "q4", "Yes.", mood="calm"),
    said("q6", "a2", "Whom?"),
    said("q7", "a2", "Him?"),
    said("a8", "q7", "Yes, him.", deleted=True),
    said("a9", "q4", "No."),
]


@pytest.mark.parametrize(
    ("paths", "wanted", "lines"),
    [
        ("best", [["Far?", "A mile.", "By foot?", "Yes."]], [1, 6, 7, 8, 9]),
        (
            "all",
            [
                ["Far?", "A mile.", "By foot?", "Yes."],
                ["Far?", "A mile.", "By foot?", "No."],
                ["Far?", "Ask him."],
            ],
            [6, 7, 8],
        ),
    ],
)
def test_messages_that_answer_each_other_become_conversations(paths, wanted, lines, written, prepared):
    ready = prepared(written(TABLE, {"message_trees": paths}, format="messages"))
    bare = [text.replace("<|im_end|>", "") for text in texts(ready)]
    assert [re.findall(r"(?:user|assistant)\n(.*)\n", text) for text in bare] == wanted
    account = ready.ledger.splits["train"][0]
    assert account.unread == ("lang",), "what all messages of a path have is a column of the row"
    assert [*account.unread_keys] == ["messages[].mood"]
    left_out = [int(re.match(r"rows.jsonl:(\d+)", reason)[1]) for reason in account.reasons["message_trees"]]
    assert sorted(left_out) == lines
    assert account.read == len(TABLE)


def test_trees_in_a_row_are_the_same_conversations(written, prepared):
    def grown(name):
        (node,) = [row for row in TABLE if row["message_id"] == name]
        return {**node, "replies": [grown(row["message_id"]) for row in TABLE if row["parent_id"] == name]}

    table = texts(prepared(written(TABLE, {"message_trees": "all"}, format="messages")))
    tree = {"prompt": grown("q1"), "tree_state": "ready"}
    ready = prepared(written([tree], {"message_trees": "all"}, format="messages"))
    assert texts(ready) == table
    assert ready.origins.of(range(3)) == ["rows.jsonl:1"] * 3


def test_messages_that_answer_none_are_bad_rows(written, prepared):
    rows = [
        *TABLE,
        said("q10", "q99", "Who?"),
        said("q1", None, "Again?"),
        {"text": "?"},
        said("a11", "q10", 3),
        said("a12", "a12", "Me."),
        {"prompt": {"role": "prompter", "text": "Who?", "replies": [3]}},
    ]
    ready = prepared(written(rows, "message_trees", format="messages", data={"on_bad_row": "skip", "max_dropped": 1.0}))
    told = " ".join(reasons(ready, "bad"))
    for reason in (
        "rows.jsonl:10: message_trees: parent_id: names 'q99', which is no message here",
        "rows.jsonl:11: message_trees: message_id: is 'q1', as in rows.jsonl:2",
        "rows.jsonl:12: message_trees: parent_id: is missing, and no `prompt` holds a tree",
        "rows.jsonl:13: message_trees: text: must be text",
        "rows.jsonl:15: message_trees: prompt.replies: must be a list of messages",
    ):
        assert reason in told
    assert "rows.jsonl:14: is not on the best path" in " ".join(reasons(ready, "message_trees"))


# --- score_margin -----------------------------------------------------------------------------------------------------

SCORES = [(8, 6), (9, 3), (5, 5), (4, "6"), ("7.5", 7)]


def test_a_margin_of_scores_becomes_the_weight_of_the_row(prepared, written):
    rows = [row(number, score_chosen=one, score_rejected=other) for number, (one, other) in enumerate(SCORES, start=1)]
    file = written(rows, {"score_margin": {"full": 4}}, row_weight="weight", data={"on_unread_column": "error"})
    ready = prepared(file, "masking=[assistant, message_weights]")
    assert kept(ready) == [1, 2, 5]
    assert [max(weights) for weights in ready.train["weights"]] == [0.5, 1.0, 0.125]
    assert reasons(ready, "score_margin") == [
        "rows.jsonl:3: has no margin: score_chosen is 5 and score_rejected 5",
        "rows.jsonl:4: has no margin: score_chosen is 4 and score_rejected 6",
    ]
    (step,) = ready.ledger.splits["train"][0].processed
    assert step.in_words() == "5 rows in, 3 out: 2 dropped, 3 changed"


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"score_chosen": None, "score_rejected": 1}, "score_chosen: must be a number, not None"),
        ({"score_chosen": 1}, "score_rejected: is missing. Did you mean 'score_chosen'?"),
        ({"score_chosen": 2, "score_rejected": 1, "weight": 1}, "weight: stands in the row already"),
    ],
)
def test_a_row_without_a_margin_to_tell_is_bad(prepared, written, columns, said):
    with pytest.raises(DataError) as caught:
        prepared(
            written([row(1, **columns)], "score_margin", row_weight="weight"), "masking=[assistant, message_weights]"
        )
    assert said in str(caught.value)


def test_a_margin_that_no_source_reads_is_refused(prepared, written):
    with pytest.raises(RecipeError, match="makes the column 'weight', and no source reads it as a weight"):
        prepared(written([row(1)], "score_margin"))
