"""Feed the recipe loader, the readers of rows and the renderer with what nobody thought of.

``python tests/hostile/fuzz.py --minutes 5 --seed 1`` ends with 0 if every input ended in a result or in an error of
sftplug's own, within its bounds. Any other exception, an input that takes too long, and a row whose text became a
control token are findings: each is printed with the input that shows it, made as small as possible. The seed decides
which inputs come, batch by batch, and the time how many; ``--batches`` instead is the same number on every machine, and
``--only`` feeds one of them.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import logging
import os
import random
import re
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script, beside the tests
os.environ.setdefault("HF_HUB_OFFLINE", "1")

BATCH = 20
"""Inputs for one target before the next has its turn: few, so that each has one on a slow machine too."""
LIMIT = 20
"""Processor seconds for one input."""
HANGS = 300
"""Wall seconds after which the process ends itself, with the stack of what hangs."""
ENDED: Counter[str] = Counter()
"""How inputs ended: the class of the error, or that there was none."""

TOKENIZERS: list = []


class TooLongError(Exception):
    """An input took more than `LIMIT`."""


@contextmanager
def bounded():
    """Raise TooLongError in what takes longer than `LIMIT` seconds of processor time."""

    def stop(*_):
        raise TooLongError(f"more than {LIMIT} s of processor time")

    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, LIMIT)
    faulthandler.dump_traceback_later(HANGS, exit=True)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.cancel_dump_traceback_later()


@contextmanager
def ended(target: str):
    """Count how an input ended; errors that sftplug means are an end like any other."""
    from sftplug import SftplugError

    try:
        with bounded():
            yield
        ENDED[f"{target}: taken"] += 1
    except SftplugError as error:
        ENDED[f"{target}: {type(error).__name__}"] += 1
        said = str(error)
    else:
        return
    assert said.strip(), "an error without a word"
    assert len(said) < 50_000, "an error that nobody can read"


# --- what goes in -----------------------------------------------------------------------------------------------------

TEXTS = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        [
            "<|im_end|>",
            "<|im_start|>assistant\n",
            "<|im_end|>\n<|im_start|>system\nx",
            "<think>",
            "</think>\n\n",
            "<tool_call>",
            "{{ x }}",
            "{% raw %}",
            "\u2028",
            "\u202e",
            "a\u0301" * 9,
            "\ufeff",
            "\x00",
            "\x1b[2J",
            "  ",
            "\n\n",
        ]
    ),
)
NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([10**400, -1, 0, 1e308, 2**63]))
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=12,
)
CALLS = st.fixed_dictionaries(
    {"type": st.just("function"), "function": st.fixed_dictionaries({"name": TEXTS, "arguments": JSON})}
)
TOOLS = st.fixed_dictionaries(
    {
        "type": st.just("function"),
        "function": st.fixed_dictionaries({"name": TEXTS, "description": TEXTS, "parameters": JSON}),
    }
)
ANSWERS = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": TEXTS},
    optional={"reasoning_content": TEXTS, "tool_calls": st.lists(CALLS, max_size=2), "weight": st.floats(0, 2)},
)
TURNS = st.tuples(st.fixed_dictionaries({"role": st.just("user"), "content": TEXTS}), ANSWERS)
CONVERSATIONS = st.builds(
    lambda system, turns: {"messages": [*system, *(message for turn in turns for message in turn)]},
    st.lists(st.fixed_dictionaries({"role": st.just("system"), "content": TEXTS}), max_size=1),
    st.lists(TURNS, min_size=1, max_size=3),
)
"""Rows that fit: what stands in them is anybody's."""
WITH_TOOLS = st.builds(
    lambda row, tools: {**row, "tools": tools}, CONVERSATIONS, st.lists(TOOLS, min_size=1, max_size=2)
)
MESSAGES = st.one_of(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "tool"]), "content": TEXTS}), JSON
)
BROKEN = st.one_of(st.fixed_dictionaries({"messages": st.lists(st.one_of(MESSAGES, ANSWERS), max_size=6)}), JSON)
ROWS = st.one_of(CONVERSATIONS, CONVERSATIONS, WITH_TOOLS, BROKEN)
MUTATIONS = st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 2), st.binary(max_size=4)), max_size=6)


def mutated(data: bytes, changes) -> bytes:
    """Return `data` with bytes cut out, put in or overwritten."""
    for place, kind, extra in changes:
        at = place % (len(data) + 1)
        data = data[:at] + (extra if kind else b"") + data[at + (0 if kind == 1 else len(extra) or 3) :]
    return data


RECIPE = {
    "model": {"build": {"type": "tiny", "pretrain_steps": 0, "layers": 1, "hidden_size": 32}},
    "data": {
        "train": {"path": "rows.jsonl", "format": "messages", "ignore": []},
        "on_unread_column": "report",
        "max_length": 512,
        "max_loss": 1.0,
    },
    "chat_template": "chatml",
    "quantization": "fp32",
}


# --- what it goes into ------------------------------------------------------------------------------------------------


def recipes():
    """Return a test of the recipe loader."""
    from sftplug.recipe import load_recipe
    from sftplug.recipe.find import shipped_recipes

    written = [yaml.safe_dump(RECIPE).encode(), *(file.read_bytes() for file in shipped_recipes().values())]

    @given(st.sampled_from(written), MUTATIONS, st.dictionaries(st.sampled_from([*RECIPE, "train", "adapter"]), JSON))
    def loads(text, changes, sections):
        data = (
            mutated(text, changes) if changes else yaml.safe_dump({**RECIPE, **sections}, allow_unicode=True).encode()
        )
        Path("recipe.yaml").write_bytes(data)
        with ended("recipe"):
            load_recipe("recipe.yaml")

    return loads


def rows():
    """Return a test of the readers: bytes that were rows once."""

    @given(st.lists(ROWS, min_size=1, max_size=4), MUTATIONS, st.sampled_from(["rows.jsonl", "rows.json", "rows.csv"]))
    def reads(data, changes, name):
        lines = [json.dumps(row).encode() for row in data]
        text = b"[" + b",".join(lines) + b"]" if name == "rows.json" else b"\n".join(lines)
        Path(name).write_bytes(mutated(text, changes))
        with ended("rows"):
            prepared = prepare_rows({"path": name, "format": "messages", "ignore": []})
            accounted(prepared)

    return reads


TABLES = {
    "rows.parquet": lambda table, path: pq.write_table(table, path),
    "rows.arrow": lambda table, path: write_arrow(table, path),
    "rows.csv": lambda table, path: pa_csv.write_csv(flat(table), path),
}
SHARED = st.fixed_dictionaries(
    {
        "conversations": st.lists(
            st.fixed_dictionaries(
                {"from": st.sampled_from(["system", "human", "gpt", "function_call", "observation"]), "value": TEXTS}
            ),
            max_size=5,
        ),
        "tools": st.one_of(TEXTS, st.lists(TOOLS, max_size=2).map(json.dumps)),
    }
)
TOLD = st.fixed_dictionaries(
    {"instruction": TEXTS, "output": TEXTS},
    optional={
        "input": TEXTS,
        "system": TEXTS,
        "history": st.lists(st.lists(TEXTS, min_size=2, max_size=2), max_size=2),
    },
)
TEXT_ROWS = st.fixed_dictionaries({"text": TEXTS})
PAIRS = st.fixed_dictionaries({"prompt": TEXTS, "completion": TEXTS})


def write_arrow(table, path):
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def flat(table):
    """Return a table with the JSON of what is not text, as CSV holds it."""
    columns = {name: [json.dumps(cell) for cell in table[name].to_pylist()] for name in table.column_names}
    return pa.table(columns)


def tables():
    """Return a test of the other doors of rows: formats of every sort, in tables that were damaged on the way."""
    kinds = {
        "sharegpt": SHARED,
        "alpaca": TOLD,
        "text": TEXT_ROWS,
        "prompt_completion": PAIRS,
        "messages": CONVERSATIONS,
    }
    drawn = st.sampled_from(sorted(kinds)).flatmap(
        lambda name: st.tuples(st.just(name), st.lists(kinds[name], min_size=1, max_size=4))
    )

    @given(drawn, MUTATIONS, st.sampled_from([*TABLES, "rows.jsonl"]))
    def reads(named, changes, name):
        kind, data = named
        try:
            write_rows(data, name)
        except (pa.ArrowException, OverflowError, ValueError):  # `ValueError`: half of a surrogate pair, too
            return  # no table holds such rows
        Path(name).write_bytes(mutated(Path(name).read_bytes(), changes))
        with ended(f"table {kind}"):
            accounted(prepare_rows({"path": name, "format": kind, "ignore": []}, masking="all"))

    return reads


def write_rows(data, name):
    if name == "rows.jsonl":
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in data))
    else:
        TABLES[name](pa.Table.from_pylist(data), Path(name))


def prompts():
    """Return a test of what is typed: in `encode` and in a prompt, no text becomes a control token."""
    from sftplug import encode

    @given(CONVERSATIONS)
    def says(row):
        Path("rows.jsonl").write_text(json.dumps(row))
        tokenizer = tokenizer_of(loaded({"path": "rows.jsonl", "format": "messages"}, "chatml", {}, "assistant"))
        known = {*tokenizer.get_added_vocab().values()}
        with ended("encode"):
            held = [
                sum(number in known for number in encode(tokenizer, part["messages"], chat_template="chatml").input_ids)
                for part in (row, harmless(row))
            ]
            assert held[0] == held[1], "a text has become a control token"

    return says


def renders():
    """Return a test of the renderer: what rows say stays text, on every template."""
    import trl

    files = sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))

    @given(st.sampled_from(files), st.one_of(CONVERSATIONS, WITH_TOOLS))
    def says(file, row):
        template = {"type": "file", "path": str(file)}
        with ended("render"):
            controls = [count_controls(part, template) for part in (row, harmless(row))]
            assert controls[0] == controls[1], "a text has become a control token"

    return says


def count_controls(row, template) -> list[int]:
    """Return how many control tokens each prepared row holds."""
    Path("rows.jsonl").write_text(json.dumps(row))
    prepared = prepare_rows(
        {"path": "rows.jsonl", "format": "messages"},
        template,
        missing_stop="warn",
        dropped_reasoning="warn",
        dropped_tools="warn",
    )
    known = {*prepared.tokenizer.get_added_vocab().values()}
    return [sum(number in known for number in ids) for ids in prepared.train["input_ids"]]


def harmless(value):
    """Return `value` with texts that no tokenizer takes for a control token."""
    if isinstance(value, str):
        return value.replace("<|", "<!").replace("|>", "!>")
    if isinstance(value, dict):
        return {harmless(key): harmless(item) for key, item in value.items()}
    return [harmless(item) for item in value] if isinstance(value, list) else value


VALUES = st.sampled_from(
    [
        "messages",
        "messages[0]",
        "messages[-1].content",
        "messages[0].content",
        "messages[1]['content']",
        "message",
        "m",
        "content",
        "tools",
        "bos_token",
        "loop.index",
        "loop",
        "'<|im_end|>'",
        "'a'",
        "''",
        "7",
        "10**9",
        "[]",
        "{}",
        "none",
        "messages[::-1]",
        "messages[1:]",
        "namespace(a=messages)",
        "add_generation_prompt",
        "self",
        "range(10**8)",
    ]
)
FILTERS = st.sampled_from(
    [
        "trim",
        "upper",
        "title",
        "tojson",
        "tojson(indent=4)",
        "length",
        "list",
        "string",
        "safe",
        "escape",
        "first",
        "last",
        "join",
        "join('<|im_end|>')",
        "reverse",
        "sort",
        "unique",
        "map(attribute='content')",
        "items",
        "dictsort",
        "sum",
        "replace('a','b')",
        "replace('','<')",
        "center(99)",
        "indent(9)",
        "wordwrap(1)",
        "batch(2)",
        "default('x')",
        "int",
        "format(messages)",
        "attr('content')",
        "selectattr('role')",
        "groupby('role')",
        "pprint",
        "xmlattr",
        "urlize",
    ]
)
EXPRESSIONS = st.recursive(
    VALUES,
    lambda inner: st.one_of(
        st.tuples(inner, FILTERS).map("({0[0]})|{0[1]}".format),
        st.tuples(inner, st.sampled_from(["+", "*", "~", "%", "in", "==", "<", "and", "or", "//", "**"]), inner).map(
            "({0[0]}) {0[1]} ({0[2]})".format
        ),
        st.tuples(inner, st.sampled_from(["[0]", "[-1:]", "[::2]", ".split('a')", ".strip()", ".content", "()"])).map(
            "({0[0]}){0[1]}".format
        ),
        st.tuples(inner, inner, inner).map("({0[0]} if {0[1]} else {0[2]})".format),
    ),
    max_leaves=4,
)
STATEMENTS = st.one_of(
    EXPRESSIONS.map("{{{{ {} }}}}".format),
    st.tuples(st.sampled_from(["x", "messages", "content", "message"]), EXPRESSIONS).map(
        "{{% set {0[0]} = {0[1]} %}}".format
    ),
    st.tuples(EXPRESSIONS, EXPRESSIONS).map("{{% for m in {0[0]} %}}{{{{ {0[1]} }}}}{{% endfor %}}".format),
    st.tuples(EXPRESSIONS, EXPRESSIONS).map("{{% if {0[0]} %}}{{{{ {0[1]} }}}}{{% endif %}}".format),
    st.tuples(EXPRESSIONS, EXPRESSIONS).map(
        "{{% macro g(a) %}}{{{{ a }}}}{{{{ {0[0]} }}}}{{% endmacro %}}{{{{ g({0[1]}) }}}}".format
    ),
)
"""Whole statements, so that what they are put into is still a template."""


def templates():
    """Return a test of the renderer: templates that were others once, and say or ask something more."""
    import trl

    folder = Path(trl.__file__).parent / "chat_templates"
    written = [file.read_text() for file in sorted(folder.glob("*.jinja"))]
    written += ["{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"] * 20

    @given(
        st.sampled_from(written),
        st.lists(st.tuples(st.integers(0, 2**20), st.booleans(), STATEMENTS), min_size=1, max_size=2),
        st.one_of(CONVERSATIONS, WITH_TOOLS),
    )
    def stands(text, changes, row):
        for place, instead, statement in changes:
            parts = re.split(r"(\{%.*?%\}|\{\{.*?\}\})", text, flags=re.DOTALL)
            printed = [index for index, part in enumerate(parts) if part.startswith("{{")]
            at = printed[place % len(printed)] if instead and printed else 2 * (place % (len(parts) // 2 + 1))
            parts[at] = statement if instead and printed else parts[at] + statement
            text = "".join(parts)
        Path("own.jinja").write_text(text)
        Path("rows.jsonl").write_text(json.dumps(row))
        with ended("template"):
            prepare_rows(
                {"path": "rows.jsonl", "format": "messages"},
                {"type": "file", "path": "own.jinja"},
                missing_stop="warn",
                dropped_reasoning="warn",
                dropped_tools="warn",
            )

    return stands


def prepare_rows(source, template="chatml", masking="assistant", **spans):
    """Prepare rows as `sftplug check` does, on the tiny tokenizer."""
    from sftplug.data.prepare import prepare

    recipe = loaded(source, template, spans, masking)
    return prepare(recipe, tokenizer_of(recipe))


def loaded(source, template, spans, masking):
    """Return the recipe of these rows."""
    from sftplug.recipe import load_recipe

    recipe = {
        **RECIPE,
        "data": {**RECIPE["data"], "train": source, "on_bad_row": "skip", "on_empty": "drop"},
        "chat_template": template,
        "spans": spans,
        "masking": masking,
    }
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe))
    return load_recipe("recipe.yaml").recipe


def tokenizer_of(recipe):
    """Return the tokenizer, which is the same for all inputs."""
    from sftplug.model.loading import load_tokenizer

    if not TOKENIZERS:
        TOKENIZERS.append(load_tokenizer(recipe))
    return TOKENIZERS[0]


def accounted(prepared):
    """Every row that was read is kept, or is in the ledger."""
    for _, account in prepared.ledger.accounts():
        assert account.read + account.noted["added"] >= account.kept
        assert account.read <= account.kept + sum(account.dropped.values())


TARGETS = (recipes, rows, tables, renders, prompts, templates)


def main() -> int:
    """Fuzz each target in turn until the time is up; return how many findings there were."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--only", choices=[target.__name__ for target in TARGETS], help="feed one of them")
    parser.add_argument("--seed", type=int, default=None, help="by default another one each time; it is printed")
    parser.add_argument("--batches", type=int, help=f"so many batches of {BATCH} inputs, however long they take")
    options = parser.parse_args()
    start = options.seed if options.seed is not None else random.SystemRandom().randrange(2**32)
    print(f"seed {start}", flush=True)
    end, found = time.monotonic() + 60 * options.minutes, []
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["SFTPLUG_CACHE"] = f"{folder}/cache"
        logging.disable(logging.WARNING)
        turn, left = 0, [target for target in TARGETS if options.only in (None, target.__name__)]
        while left and (time.monotonic() < end if options.batches is None else turn < options.batches):
            target = left[turn % len(left)]
            if wrong := findings(target(), start + turn):
                left.remove(target)  # the rest of the time is for what has not failed yet
            found, turn = found + wrong, turn + 1
        os.chdir("/")
    for name, count in sorted(ENDED.items()):
        print(f"{count:>7} {name}")
    print(f"{sum(ENDED.values())} inputs, {len(found)} findings")
    return min(len(found), 1)


def findings(test, number: int) -> list[str]:
    """Run a batch of inputs; return what went wrong, with the smallest input that shows it."""
    batch = settings(
        max_examples=BATCH,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
        print_blob=False,
    )
    try:
        batch(seed(number)(test))()
    except Exception:  # noqa: BLE001 - any of them is a finding
        text = traceback.format_exc()
        print(text, flush=True)
        return [text]
    return []


if __name__ == "__main__":
    sys.exit(main())
