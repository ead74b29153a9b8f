"""What errors about row processors offer."""

from ways_out.cases import REPLY, USER, Case, both, file, leave_out, mend_rows, put

GOOD = {"messages": [USER, REPLY]}
HELD = '{"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "I."}]}\n'
PROCESS = "data.train.process"
EVAL = {"path": "held.jsonl", "format": "messages"}
SECOND = [
    {"path": "rows.jsonl", "format": "messages"},
    {"path": "held.jsonl", "format": "messages"},
]
STREAMS = """
import sftplug
from sftplug import *

class Late(StreamProcessor):
    type: str = "late"
    def stream(self, rows, context):
        first, *others = rows
        yield from [*others, first]

class Silent(StreamProcessor):
    type: str = "silent"
    def stream(self, rows, context):
        for row in rows:
            yield from [row] if len(row.data["messages"]) == 2 else []

class Bad(RowProcessor):
    type: str = "NAME"
    def process(self, row):
        return row.data

@sftplug.hookimpl
def sftplug_row_processors():
    return [Late, Silent, Bad]
""".replace("NAME", "fine")
NAMED = {"column": "messages", "by": "words"}


def plugin(old="", new=""):
    """Write the plugin of this page, a text in it replaced."""
    return file("mine.py", STREAMS.replace(old, new) if old else STREAMS)


SCORED = {**GOOD, "score_chosen": 2, "score_rejected": 1}
CASES = [
    Case(
        "makes the column '{}', and no source reads it as a weight. Say `row_weight: {}` beside `process`.",
        {"Say `row_weight: weight` beside `process`": put("data.train.row_weight", "weight")},
        recipe={PROCESS: "score_margin", "masking": ["assistant", "message_weights"]},
        rows=[SCORED],
    ),
    Case(
        "stands in the row already. Let `column` of score_margin name another one",
        {
            "Let `column` of score_margin name another one": both(
                put(f"{PROCESS}.column", "w"), put("data.train.row_weight", "w"), put("data.train.ignore", ["weight"])
            )
        },
        recipe={
            PROCESS: {"type": "score_margin"},
            "data.train.row_weight": "weight",
            "masking": ["assistant", "message_weights"],
        },
        rows=[{**SCORED, "weight": 1}],
    ),
    Case(
        "compares with the held-out rows, and these are held out. Name it for training rows.",
        {"Name it for training rows": both(leave_out("data.eval.process"), put(PROCESS, "decontaminate"))},
        recipe={"data.eval": {**EVAL, "process": "decontaminate"}},
        before=file("held.jsonl", HELD),
    ),
    Case(
        "yields {} after rows of a later source, and `data.process` takes the sources in their order. Name it in the "
        "`process` of each source",
        {
            "Name it in the `process` of each source": both(
                leave_out("data.process"), put("data.train.0.process", "late"), put("data.train.1.process", "late")
            )
        },
        recipe={"plugins": ["./mine.py"], "data.train": SECOND, "data.process": "late"},
        before=both(plugin(), file("held.jsonl", HELD)),
    ),
    Case(
        "read {} rows and said nothing of them ({}): yield sftplug.Dropped",
        {"yield sftplug.Dropped": plugin("else []", 'else [Dropped("is long", row)]')},
        recipe={"plugins": ["./mine.py"], PROCESS: "silent"},
        rows=[GOOD, {"messages": [USER, REPLY, USER, REPLY]}],
        before=plugin(),
    ),
    Case(
        "is named {}, as the ledger calls rows that end elsewhere: choose another name",
        {"choose another name": plugin()},
        recipe={"plugins": ["./mine.py"], PROCESS: "silent"},
        rows=[GOOD],
        before=plugin('"fine"', '"bad"'),
    ),
    Case(
        "has no condition: name `keep`, `drop`, `at_least` or `at_most`.",
        {
            "name `keep`": put(PROCESS, {"type": "filter", "column": "lang", "keep": "en"}),
            "`drop`": put(PROCESS, {"type": "filter", "column": "lang", "drop": "de"}),
            "`at_least`": put(PROCESS, {"type": "filter", **NAMED, "at_least": 1}),
            "`at_most`": put(PROCESS, {"type": "filter", **NAMED, "at_most": 1000}),
        },
        recipe={PROCESS: {"type": "filter", "column": "lang"}, "data.train.ignore": ["lang"]},
        rows=[{**GOOD, "lang": "en"}],
    ),
    Case(
        "needs a `column`, or `by: characters` or `by: words` for the length of a whole row.",
        {
            "needs a `column`": put(f"{PROCESS}.column", "score"),
            "`by: characters`": put(f"{PROCESS}.by", "characters"),
            "`by: words`": put(f"{PROCESS}.by", "words"),
        },
        recipe={PROCESS: {"type": "filter", "at_least": 2}, "data.train.ignore": ["score"]},
        rows=[{**GOOD, "score": 3}],
    ),
    Case(
        "`keep` and `drop` list values of a column. For its length in {} use `at_least`, `at_most`.",
        {
            "use `at_least`": both(leave_out(f"{PROCESS}.keep"), put(f"{PROCESS}.at_least", 1)),
            "`at_most`": both(leave_out(f"{PROCESS}.keep"), put(f"{PROCESS}.at_most", 1000)),
        },
        recipe={PROCESS: {"type": "filter", **NAMED, "keep": 3}},
    ),
    Case(
        "no row is at least {} and at most {}. Lower `at_least`.",
        {"Lower `at_least`": put(f"{PROCESS}.at_least", 1)},
        recipe={PROCESS: {"type": "filter", **NAMED, "at_least": 1001, "at_most": 1000}},
    ),
    Case(
        "needs exactly one of `n`, a number of rows, and `share`.",
        {"`n`": put(PROCESS, {"type": "sample", "n": 1}), "`share`": put(PROCESS, {"type": "sample", "share": 1})},
        recipe={PROCESS: "sample"},
    ),
    Case(
        "draws {} rows, and there are {}. Lower `n`, or leave it out.",
        {"Lower `n`": put(f"{PROCESS}.n", 1), "leave it out": leave_out(PROCESS)},
        recipe={PROCESS: {"type": "sample", "n": 1000}},
    ),
    Case(
        "names {}, which stands in no row. Correct it, or leave it out.",
        {
            "Correct it": put(f"{PROCESS}.texts", {"{{name}}": "Ada"}),
            "leave it out": leave_out(PROCESS),
        },
        recipe={PROCESS: {"type": "replace", "texts": {"{{nam}}": "Ada"}}},
        rows=[{"messages": [USER, {"role": "assistant", "content": "I am {{name}}."}]}],
    ),
    Case(
        "no row has the column '{}'.{} They have: {}. Correct it, or leave it out.",
        {
            "Correct it": put(f"{PROCESS}.columns", {"messages": "chat"}),
            "leave it out": both(leave_out(PROCESS), mend_rows({"chat": GOOD["messages"]})),
        },
        recipe={
            PROCESS: {"type": "rename", "columns": {"message": "chat"}},
            "data.train.format": {"type": "messages", "column": "chat"},
        },
        rows=[GOOD],
    ),
    Case(
        "compares with rows of `data.eval`, and `data.eval_fraction` draws the held-out rows when all rows are processed. "
        "Use `dedupe` instead: of equal rows only one is left to draw.",
        {"Use `dedupe` instead": put(PROCESS, "dedupe")},
        recipe={PROCESS: "decontaminate", "data.eval_fraction": 0.5},
    ),
    Case(
        "there are no held-out rows to compare with: name some in `data.eval`, or others in `against`.",
        {
            "name some in `data.eval`": both(file("held.jsonl", HELD), put("data.eval", EVAL)),
            "or others in `against`": both(
                file("held.jsonl", HELD), put(PROCESS, {"decontaminate": {"against": {"path": "held.jsonl"}}})
            ),
        },
        recipe={PROCESS: "decontaminate"},
    ),
]
