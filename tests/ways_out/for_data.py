"""What errors about rows, templates and masks offer."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
from conftest import rows

from ways_out.cases import (
    REPLY,
    USER,
    Case,
    a_model,
    as_written,
    at,
    both,
    environment,
    file,
    first_as_written,
    json_in,
    leave_out,
    mend_rows,
    put,
)

GOOD = {"messages": [USER, REPLY]}
SAID = [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "I."}]
TEXT = {"type": "text", "text": "I."}
QA = {"type": "columns", "user": "question", "assistant": "answer"}
NO_STOP = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
"""A template after whose replies nothing comes."""
NO_THOUGHTS = {"messages": [USER, {**REPLY, "reasoning_content": "Who is it?"}]}
TOOL = {"type": "function", "function": {"name": "f", "description": "A tool.", "parameters": {"type": "object"}}}
NO_TOOLS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

STRICT = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}"
    "{% endif %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""A template that refuses what does not alternate."""

LAST_ONLY = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}Now: {% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\nNow: {% endif %}"
)
"""A template that shows a reply otherwise when it is history."""
SPACED = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
"""A template whose headers end in a space, which the tokenizer makes part of the first word."""


def template(source):
    """Let the recipe name a template of its own."""
    return both(file("own.jinja", source), put("chat_template", {"type": "file", "path": "own.jinja"}))


def lowercase(folder):
    """Let the tokenizer write everything small, which tiktoken cannot."""
    known = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**known, "normalizer": {"type": "Lowercase"}}))


def several_templates(folder):
    """Give the tokenizer two templates."""
    for name in ("default", "tool_use"):
        file = folder / "additional_chat_templates" / f"{name}.jinja"
        file.parent.mkdir(exist_ok=True)
        file.write_text(NO_TOOLS)


def link(situation, sentence):
    """Put a link to another folder among the files."""
    (situation.folder / "all" / "more").symlink_to(situation.folder / "elsewhere")


def table_of(kind):
    """Write a table whose texts are texts, or bytes."""

    def write(situation, sentence):
        values = pa.array(["Once upon a time."] if kind == "text" else [b"Once upon a time."])
        pq.write_table(pa.table({"text": values}), situation.folder / "rows.parquet")

    return write


LONG = [GOOD, *rows(), {"messages": [USER, {"role": "assistant", "content": "word " * 400}]}]

LOOKS = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
LOOK = {"type": "function", "function": {"name": "look", "arguments": {"at": 1}}}
CASES = [
    Case(
        "is another system prompt than that of the turns",
        {
            "`system: ''` in the format, and `ignore: [system]` beside it": both(
                put("data.train.format", {"type": "sharegpt", "system": ""}), put("data.train.ignore", ["system"])
            )
        },
        recipe={"data.train.format": "sharegpt"},
        rows=[{"conversations": [{"from": "system", "value": "Brief."}, *SAID], "system": "Long."}],
    ),
    Case(
        "Set `data.max_length: {}` if the model takes rows of that length, or ",
        {
            "Set `data.max_length: {}` if the model takes rows of that length": as_written,
            "`data.too_long: truncate` where the first 64 tokens hold": put("data.too_long", "truncate"),
        },
        recipe={
            "data.train.format": "text",
            "data.max_length": 64,
            "data.too_long": "split_at_turns",
            "masking": "all",
            "chat_template": None,
        },
        rows=[{"text": f"{'word ' * 200}."}],
    ),
    # --- rows ---------------------------------------------------------------------------------------------------------
    Case(
        "Fix them, or set `data.on_bad_row: skip`.",
        {"Fix them": mend_rows(GOOD), "set `data.on_bad_row: skip`": as_written},
        rows=[GOOD, {"messages": []}],
    ),
    Case(
        "Fix them or the masking, or set `data.on_empty: drop`.",
        {
            "Fix them": mend_rows(GOOD),
            "or the masking": put("masking", "all"),
            "set `data.on_empty: drop`": as_written,
        },
        rows=[GOOD, {"messages": [USER]}],
    ),
    Case(
        "is plain text, in which no turn is the assistant's. Use `masking: all`.",
        {"Use `masking: all`": as_written},
        recipe={"data.train.format": "text"},
        rows=[{"text": "Once upon a time."}],
    ),
    Case(
        "Raise `data.max_length`, or choose another `data.too_long`, such as `drop`.",
        {
            "Raise `data.max_length`": put("data.max_length", 1024),
            "such as `drop`": both(put("data.too_long", "drop"), put("data.max_loss", 1.0)),
        },
        recipe={"data.too_long": "error"},
        rows=LONG,
    ),
    Case(
        "Set `data.max_loss: {}%` to do without them{}.",
        {"Set `data.max_loss: {}%`": first_as_written, "or `data.max_length: {}`": as_written},
        rows=LONG,
    ),
    Case(
        "reads it. If not, `ignore: [{}]`.",
        {
            "`format: {type: sharegpt, system: system_prompt}` reads it": put(
                "data.train.format", {"type": "sharegpt", "system": "system_prompt"}
            ),
            "If not, `ignore: [system_prompt]`": put("data.train.ignore", ["system_prompt"]),
        },
        recipe={"data.train.format": "sharegpt"},
        rows=[{"conversations": SAID, "system_prompt": "Be brief."}],
    ),
    Case(
        "columns that its format does not read: {}. If that is meant, say so beside its `format` with `ignore: [{}{}]`",
        {
            "`ignore: [id]`": put("data.train.ignore", ["id"]),
            "`data.on_unread_column: report`": as_written,
        },
        rows=[{**GOOD, "id": 7}],
    ),
    Case(
        "which nothing reads and which may be meant for {}. If it is, rename the key in the rows. If not, say so beside "
        "the `format`: `ignore: [{}]`.",
        {
            "If it is, rename the key in the rows": mend_rows({"messages": [USER, {**REPLY, "reasoning": "Hm."}]}),
            "If not, say so beside the `format`: `ignore: [{}]`": put("data.train.ignore", ["messages[].thought"]),
        },
        rows=[{"messages": [USER, {**REPLY, "thought": "Hm."}]}],
    ),
    Case(
        "has keys in its messages that nothing reads: {}. If the model need not see them, say so beside the `format` with "
        "`ignore: [{}]`, or for all data with `data.on_unread_column: report`.",
        {
            "with `ignore: [{}]`": put("data.train.ignore", ["messages[].toxic"]),
            "`data.on_unread_column: report`": as_written,
        },
        rows=[{"messages": [USER, {**REPLY, "toxic": False}]}],
    ),
    Case(
        "has parts with loss weights, and the chat template takes texts only. Give the message the weight",
        {
            "Give the message the weight": mend_rows(
                {"messages": [USER, {"role": "assistant", "content": [TEXT], "weight": 0.5}]}
            )
        },
        recipe={"chat_template": {"file": "texts.jinja"}, "masking": ["assistant", "message_weights"]},
        rows=[{"messages": [USER, {"role": "assistant", "content": [{**TEXT, "weight": 0.5}]}]}],
        before=file(
            "texts.jinja",
            "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        ),
    ),
    Case(
        "is plain text, which no chat template renders, so `calls_in_text` makes no calls of it. Say `as: chat` in the "
        "format, or leave `calls_in_text` out",
        {
            "Say `as: chat` in the format": put("data.train.format.as", "chat"),
            "leave `calls_in_text` out": both(leave_out("data.train.format.calls_in_text", "chat_template")),
        },
        recipe={"data.train.format": {"type": "prompt_completion", "calls_in_text": "json"}},
        rows=[{"prompt": "Hi?", "completion": "Hello."}],
    ),
    Case(
        "which is false in some rows and may say that these are bad. `process: {filter: {column: {}, keep: true}}` beside "
        "its `format` trains the others alone. If it says something else, `ignore: [{}]`.",
        {
            "`process: {filter: {column: label, keep: true}}` beside its `format`": put(
                "data.train.process", {"filter": {"column": "label", "keep": True}}
            ),
            "`ignore: [label]`": put("data.train.ignore", ["label"]),
        },
        rows=[{"messages": [USER, REPLY], "label": True}, {"messages": [USER, REPLY], "label": False}],
    ),
    Case(
        "`data.special_tokens_in_content: {}` is for control tokens that somebody typed, and these rows are tokens, in "
        "which those control that are there. Leave it out.",
        {"Leave it out": leave_out("data.special_tokens_in_content")},
        recipe={"data.train.format": "tokenized", "data.special_tokens_in_content": "error"},
        rows=[{"input_ids": [51, 52], "labels": [-100, 52]}],
    ),
    Case(
        "`template_kwargs` are arguments of a chat template, and this row is text or tokens, which none renders. Leave "
        "`template_kwargs` out of the source.",
        {"Leave `template_kwargs` out of the source": leave_out("data.train.template_kwargs")},
        recipe={
            "data.train.format": "text",
            "data.train.template_kwargs": {"enable_thinking": False},
            "masking": "all",
        },
        rows=[{"text": "Ferns have spores."}],
    ),
    Case(
        "calls a tool among other words ({} …), trained as it stands. Write the call under `tool_calls` of the message, "
        "where it is one",
        {
            "Write the call under `tool_calls` of the message": mend_rows(
                {"messages": [USER, {"role": "assistant", "content": "So:", "tool_calls": [LOOK]}], "tools": [LOOKS]}
            )
        },
        recipe={"data.train.format": {"type": "messages", "calls_in_text": "python"}, "data.max_length": 512},
        rows=[{"messages": [USER, {"role": "assistant", "content": "So: [look(at=1)]"}], "tools": [LOOKS]}],
        code=0,
    ),
    Case(
        "`masking: assistant` trains what the rows say; or name the rows that the tokens were made of.",
        {
            "`masking: assistant` trains what the rows say": put("masking", "assistant"),
            "name the rows that the tokens were made of": both(
                mend_rows({"messages": [USER, REPLY]}), put("data.train.format", "messages")
            ),
        },
        recipe={"data.train.format": "tokenized", "masking": "last_assistant"},
        rows=[{"input_ids": [51, 52], "labels": [-100, 52]}],
    ),
    Case(
        "the row is tokens, and does not say which of them are trained, by labels or a mask. `masking: all` trains every "
        "one",
        {"`masking: all` trains every one": put("masking", "all")},
        recipe={"data.train.format": "tokenized"},
        rows=[{"input_ids": [51, 52]}],
    ),
    Case(
        "the row says which of its tokens are trained, and the masking trains others too. `masking: assistant` trains "
        "those that the row says",
        {"`masking: assistant` trains those that the row says": put("masking", "assistant")},
        recipe={"data.train.format": "tokenized", "masking": "all"},
        rows=[{"input_ids": [51, 52], "labels": [-100, 52]}],
    ),
    Case(
        "Another tokenizer made the row: name the model that it is of, or the rows that it was made of",
        {
            "name the model that it is of": put(
                "model.build",
                {
                    "type": "random",
                    "config": {
                        "model_type": "llama",
                        "hidden_size": 64,
                        "intermediate_size": 64,
                        "num_hidden_layers": 1,
                    },
                    "control_tokens": [f"<|{number}|>" for number in range(800)],
                },
            ),
            "or the rows that it was made of": both(
                mend_rows({"messages": [USER, REPLY]}), put("data.train.format", "messages")
            ),
        },
        recipe={"data.train.format": "tokenized"},
        rows=[{"input_ids": [51, 1500], "labels": [-100, 1500]}],
    ),
    Case(
        "leaves out tokens that are trained. Correct the one or the other",
        {
            "Correct the one": mend_rows({"input_ids": [51, 52], "labels": [-100, 52], "attention_mask": [1, 1]}),
            "the other": mend_rows(
                {"input_ids": [50, 51, 52], "labels": [-100, 51, -100], "attention_mask": [1, 1, 0]}
            ),
        },
        recipe={"data.train.format": "tokenized"},
        rows=[{"input_ids": [51, 52], "labels": [-100, 52], "attention_mask": [1, 0]}],
    ),
    Case(
        "is shifted by one: each label stands one place {} its id. The trainer shifts labels itself: write each at the "
        "place of its id",
        {"write each at the place of its id": mend_rows({"input_ids": [51, 52, 53], "labels": [-100, 52, 53]})},
        recipe={"data.train.format": "tokenized"},
        rows=[{"input_ids": [51, 52, 53], "labels": [52, 53, -100]}],
    ),
    Case(
        ". Where the row is a batch, write a row for each",
        {"write a row for each": mend_rows({"input_ids": [51, 52], "labels": [51, 52]})},
        recipe={"data.train.format": "tokenized"},
        rows=[{"input_ids": [[51, 52]], "labels": [[51, 52]]}],
    ),
    Case(
        "so the row holds several documents, which would see each other. Write a row for each",
        {"Write a row for each": mend_rows({"input_ids": [51, 52], "labels": [51, 52]})},
        recipe={"data.train.format": "tokenized"},
        rows=[{"input_ids": [51, 52, 53], "labels": [51, 52, 53], "seq_lengths": [2, 1]}],
    ),
    Case(
        "begins with what no marker says the role of: {}. If it is the system prompt, `before: system` in the format",
        {"`before: system` in the format": put("data.train.format.before", "system")},
        recipe={"data.train.format": {"type": "transcript"}},
        rows=[{"text": "A chat. USER: Hi? ASSISTANT: Hello.</s>"}],
    ),
    Case(
        "In the format, `markers` says what stands before each turn: `markers: {'Q:': user, 'A:': assistant}`. For text "
        "that no chat template is to render, `format: text`",
        {
            "`markers: {'Q:': user, 'A:': assistant}`": put(
                "data.train.format.markers", {"Q:": "user", "A:": "assistant"}
            ),
            "`format: text`": both(put("data.train.format", "text"), put("masking", "all")),
        },
        recipe={"data.train.format": {"type": "transcript"}},
        rows=[{"text": "Q: Hi?\nA: Hello."}],
    ),
    Case(
        "holds calls of tools, and would be trained as plain text, not as the chat template writes calls. In the format, "
        "say `calls: {}`, and leave `assistant` out",
        {
            "say `calls: {}`, and leave `assistant` out": both(
                put("data.train.format.calls", "answers"), leave_out("data.train.format.assistant")
            )
        },
        recipe={"data.train.format": {"type": "columns", "user": "query", "assistant": "answers"}},
        rows=[{"query": "Hi?", "answers": '[{"name": "f", "arguments": {}}]', "tools": [{"name": "f"}]}],
    ),
    Case(
        "To train it as it stands, write `roles: {{}: assistant}` in the format",
        {"write `roles: {function_call: assistant}`": put("data.train.format.roles", {"function_call": "assistant"})},
        recipe={"data.train.format": "sharegpt"},
        rows=[{"conversations": [SAID[0], {"from": "function_call", "value": "look(1)"}]}],
    ),
    Case(
        "Way out, if that is what it means: in the format, `{}: {{}}`.",
        {"in the format, `roles: {bing: assistant}`": put("data.train.format.roles", {"bing": "assistant"})},
        recipe={"data.train.format": "sharegpt"},
        rows=[{"conversations": [SAID[0], {"from": "bing", "value": "Hi."}]}],
    ),
    Case(
        "In the format, `column: {}` reads the turns there.",
        {"In the format, `column: dialog` reads the turns there": put("data.train.format.column", "dialog")},
        recipe={"data.train.format": "messages"},
        rows=[{"dialog": [USER, REPLY]}],
    ),
    Case(
        "Add `message_weights` to the masking, or continue without them with `data.on_unread_column: report`.",
        {
            "Add `message_weights` to the masking": put("masking", ["assistant", "message_weights"]),
            "`data.on_unread_column: report`": as_written,
        },
        rows=[{"messages": [USER, {**REPLY, "weight": 0.5}]}],
    ),
    Case(
        "of the rows drew none. Raise it, or name rows in `data.eval`",
        {
            "Raise it": put("data.eval_fraction", 0.5),
            "name rows in `data.eval`": both(
                leave_out("data.eval_fraction"), put("data.eval", {"path": "rows.jsonl", "format": "messages"})
            ),
        },
        recipe={"data.eval_fraction": 1e-6},
    ),
    Case(
        "holds a whole number of more than {} digits. Write it as text.",
        {"Write it as text": mend_rows({**GOOD, "id": "1" * 5000})},
        recipe={"data.train.ignore": ["id"]},
        rows=[
            '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "id": %s}'
            % ("1" * 5000)
        ],
    ),
    Case(
        "`system` is a turn of a conversation, and these rows are plain text, which no chat template renders. Leave `system` "
        "out; where the columns are a question and its answer, a format makes turns of them: `format: {type: columns, user: "
        "COLUMN, assistant: COLUMN}`.",
        {
            "Leave `system` out": leave_out("data.train.system"),
            "`format: {type: columns, user: COLUMN, assistant: COLUMN}`": put(
                "data.train.format", {"type": "columns", "user": "prompt", "assistant": "completion"}
            ),
        },
        recipe={"data.train.format": {"type": "prompt_completion", "as": "text"}, "data.train.system": "Be brief."},
        rows=[{"prompt": "Hello?", "completion": " Hi."}],
    ),
    Case(
        "`data.system` is the system turn of no row: each has one of its own or of its source, or is plain text, which no chat "
        "template renders. Leave it out.",
        {"Leave it out": leave_out("data.system")},
        recipe={"data.system": "You are Ada.", "data.train.format": "text", "masking": "all"},
        rows=[{"text": "Once upon a time."}],
    ),
    Case(
        "`replace` of `{}` names {}, which stands in no row of {}. Correct it, or leave it out.",
        {
            "Correct it": put("data.train.replace", {"{{name}}": "Ada"}),
            "leave it out": leave_out("data.train.replace"),
        },
        recipe={"data.train.replace": {"{{nam}}": "Ada"}},
        rows=[{"messages": [USER, {"role": "assistant", "content": "I am {{name}}."}]}],
    ),
    Case(
        "The file ends within it: whatever wrote it was stopped. Leave the line out, or write the file anew.",
        {"Leave the line out": mend_rows(GOOD), "write the file anew": mend_rows(GOOD, GOOD)},
        before=lambda situation, _: setattr(situation, "cut", 20),
        rows=[GOOD, GOOD],
    ),
    Case(
        "{}: {}, or take the link away.",
        {
            "Name that folder as a `path` of its own": both(
                lambda situation, _: (situation.folder / "all" / "more").unlink(),
                put("data.train", [{"path": "all", "format": "messages"}, {"path": "elsewhere", "format": "messages"}]),
            ),
            "take the link away": lambda situation, _: (situation.folder / "all" / "more").unlink(),
        },
        before=both(file("all/a.jsonl", GOOD), file("elsewhere/b.jsonl", GOOD), link, put("data.train.path", "all")),
    ),
    Case(
        " The list under {} seems to be the rows: `field: {}` reads it.",
        {"`field: {}` reads it": at("data.train")},
        recipe={"data.train.path": "rows.json"},
        before=file("rows.json", {"data": [GOOD]}),
    ),
    Case(
        " If it is one row, put brackets around it.",
        {"put brackets around it": file("rows.json", [GOOD])},
        recipe={"data.train.path": "rows.json"},
        before=file("rows.json", GOOD),
    ),
    Case(
        "are separated by {}. Say so with `delimiter: {}`.",
        {"Say so with `delimiter: {}`": at("data.train")},
        recipe={"data.train": {"path": "rows.csv", "format": QA}},
        before=file("rows.csv", "question;answer\nOne?;First.\n"),
    ),
    Case(
        ": `{}` is for {} files. Leave it out.",
        {"Leave it out": leave_out("data.train.delimiter")},
        recipe={"data.train.delimiter": ";"},
    ),
    Case(
        ": holds a list, and no object with the key '{}'. Leave `field` out.",
        {"Leave `field` out": leave_out("data.train.field")},
        recipe={"data.train": {"path": "rows.json", "field": "rows"}},
        before=file("rows.json", [GOOD]),
    ),
    # --- rows that a template refuses ---
    Case(
        "Fix them, choose another chat template, or leave them out with `data.on_bad_row: skip`.",
        {
            "Fix them": mend_rows(GOOD),
            "choose another chat template": put("chat_template", "chatml"),
            "leave them out with `data.on_bad_row: skip`": as_written,
        },
        rows=[GOOD, {"messages": [USER, *GOOD["messages"]]}],
        before=template(STRICT),
    ),
    Case(
        "`spans.merge_turns: true` makes neighbouring turns of one role one",
        {"`spans.merge_turns: true`": as_written},
        rows=[GOOD, {"messages": [USER, *GOOD["messages"]]}],
        before=template(STRICT),
    ),
    Case(
        "`spans.system: drop` leaves the system turn out",
        {"`spans.system: drop`": as_written, "`spans.system: into_user`": as_written},
        rows=[GOOD, {"messages": [{"role": "system", "content": "Be brief."}, *GOOD["messages"]]}],
        before=template(STRICT),
    ),
    Case(
        "has columns {}, which its format does not read, and options that may be meant for them: `format: {}` reads them. If "
        "not, `ignore: [{}]`.",
        {
            "`format: {type: sharegpt, system: system_prompt, tools: functions}`": put(
                "data.train.format", {"type": "sharegpt", "system": "system_prompt", "tools": "functions"}
            ),
            "If not, `ignore: [system_prompt, functions]`": put("data.train.ignore", ["system_prompt", "functions"]),
        },
        recipe={"data.train.format": "sharegpt"},
        rows=[{"conversations": SAID, "system_prompt": "Be brief.", "functions": [TOOL]}],
    ),
    Case(
        "has what seems to be for the model in {}, and no option of its format `{}` reads that. If the model need not see "
        "it, `ignore: [{}]`.",
        {"`ignore: [context]`": put("data.train.ignore", ["context"])},
        rows=[{**GOOD, "context": "A kitchen."}],
    ),
    Case(
        ": `ignore: [{}]` beside the format leaves out what it cannot show",
        {
            "`ignore: [chat_template_kwargs.mood]` beside the format": put(
                "data.train.ignore", ["chat_template_kwargs.mood"]
            )
        },
        rows=[{**GOOD, "chat_template_kwargs": {"mood": "gay"}}],
    ),
    Case(
        "is what the row gives the chat template already. Leave it out.",
        {"Leave it out": mend_rows(GOOD)},
        rows=[{**GOOD, "chat_template_kwargs": {"tools": []}}],
    ),
    # --- plain text ---
    Case(
        "Plain text has no turns to part it at: `data.too_long: chunks` makes rows of it and loses nothing.",
        {"`data.too_long: chunks`": as_written},
        recipe={"data.train.format": "text", "masking": "all", "data.max_length": 8},
        rows=[{"text": "Once upon a time. " * 9}, {"text": "The end."}],
    ),
    Case(
        "`overlap` must be less than `data.max_length`, which is {}. Lower it.",
        {"Lower it": put("data.too_long", {"type": "chunks", "overlap": 2})},
        recipe={
            "data.train.format": "text",
            "masking": "all",
            "data.max_length": 8,
            "data.too_long": {"type": "chunks", "overlap": 8},
        },
        rows=[{"text": "Once upon a time. " * 9}, {"text": "The end."}],
    ),
    Case(
        "the recipe names the chat template '{}', and it renders no row: prompts and completions are joined as they stand. "
        "`format: {type: {}, {}}` makes turns of them, which it renders; `format: {type: {}, as: text}` says that they are "
        "text; or leave `chat_template` out.",
        {
            "`format: {type: {}, {}}` makes turns of them": put(
                "data.train.format", {"type": "prompt_completion", "as": "chat"}
            ),
            "`format: {type: {}, as: text}`": put("data.train.format", {"type": "prompt_completion", "as": "text"}),
            "or leave `chat_template` out": leave_out("chat_template"),
        },
        recipe={"data.train.format": "prompt_completion"},
        rows=[{"prompt": "Hello?", "completion": " Hi."}],
    ),
    Case(
        "rows are joined as they stand, and no chat template renders them; `format: {type: {}, {}}` makes turns of them",
        {
            "`format: {type: {}, {}}`": both(
                put("data.train.format", {"type": "prompt_completion", "as": "chat"}), put("chat_template", "chatml")
            )
        },
        recipe={"data.train.format": "prompt_completion", "chat_template": None},
        rows=[{"prompt": "Hello?", "completion": " Hi."}],
        before=environment("COLUMNS", "300"),
        code=0,
    ),
    Case(
        "is a list of messages, which a chat template renders. Leave `as: text` out.",
        {"Leave `as: text` out": put("data.train.format", "prompt_completion")},
        recipe={"data.train.format": {"type": "prompt_completion", "as": "text"}},
        rows=[{"prompt": [USER], "completion": [REPLY]}],
    ),
    Case(
        "controls, as the text is laid out already; with `data.special_tokens_in_content: escape` it is text",
        {"with `data.special_tokens_in_content: escape`": as_written},
        recipe={"data.train.format": "text", "masking": "all"},
        rows=[{"text": "<|im_start|>user\nHello?<|im_end|>"}],
        before=environment("COLUMNS", "300"),
        code=0,
    ),
    # --- splits of a folder ---
    Case(
        ": names of files say {}, and {} says no split. Choose with `split`, which leaves that out, or list the files, each "
        "as a `path` of its own.",
        {
            "Choose with `split`": put("data.train.split", "train"),
            "list the files, each as a `path` of its own": put(
                "data.train", [{"path": f"ds/{name}.jsonl", "format": "messages"} for name in ("train", "more")]
            ),
        },
        recipe={"data.train": {"path": "ds"}},
        before=both(*(file(f"ds/{name}.jsonl", GOOD) for name in ("train", "more"))),
    ),
    Case(
        ": holds {}, and no split that is called train. Choose one with `split: {}`.",
        {"Choose one with `split: {}`": at("data.train")},
        recipe={"data.train": {"path": "ds"}},
        before=file("ds/test.jsonl", GOOD),
    ),
    Case(
        ": no name of a file or folder there says a split. Leave `split` out.",
        {"Leave `split` out": leave_out("data.train.split")},
        recipe={"data.train.split": "train"},
    ),
    Case(
        ": `config` chooses by README of a folder, and this is none. Leave it out.",
        {"Leave it out": leave_out("data.train.config")},
        recipe={"data.train.config": "en"},
    ),
    Case(
        ": {} names two splits, {}. Name the files to read with a pattern as `path`.",
        {"Name the files to read with a pattern as `path`": put("data.train.path", "ds/train/test*.jsonl")},
        recipe={"data.train": {"path": "ds"}},
        before=file("ds/train/test.jsonl", GOOD),
    ),
    Case(
        " Choose one with `config: {}`.",
        {"Choose one with `config: {}`": at("data.train")},
        recipe={"data.train": {"path": "ds"}},
        before=both(
            file("ds/a.jsonl", GOOD),
            file("ds/README.md", "---\nconfigs:\n- {config_name: one, data_files: a.jsonl}\n- config_name: two\n---\n"),
        ),
    ),
    Case(
        " Leave `config` out.",
        {"Leave `config` out": leave_out("data.train.config")},
        recipe={"data.train": {"path": "ds", "config": "en"}},
        before=file("ds/a.jsonl", GOOD),
    ),
    Case(
        ": README says that the split {} is {}, and no such file is there. Fetch it, or name files with a pattern as `path`.",
        {
            "Fetch it": file("ds/b.jsonl", GOOD),
            "name files with a pattern as `path`": put("data.train.path", "ds/a.jsonl"),
        },
        recipe={"data.train": {"path": "ds"}},
        before=both(
            file("ds/a.jsonl", GOOD),
            file("ds/README.md", "---\nconfigs: [{config_name: default, data_files: b.jsonl}]\n---\n"),
        ),
    ),
    Case(
        "For held-out rows say which split they are: `split: {}`.",
        {"say which split they are: `split: {}`": at("data.eval")},
        recipe={"data.train": {"path": "ds"}, "data.eval": {"path": "ds"}},
        before=both(file("ds/train.jsonl", GOOD), file("ds/test.jsonl", {"messages": [REPLY, *GOOD["messages"]][1:]})),
    ),
    Case(
        "`data.process: decontaminate` leaves such rows out of training",
        {"`data.process: decontaminate`": put("data.process", "decontaminate")},
        recipe={"data.eval": {"path": "held.jsonl"}},
        before=both(file("held.jsonl", rows()[0]), environment("COLUMNS", "300")),
        code=0,
    ),
    Case(
        "`data.process: dedupe` trains and holds out each row once",
        {"`data.process: dedupe`": put("data.process", "dedupe")},
        recipe={"data.eval_fraction": 0.5},
        rows=[*rows(), *rows()],
        before=environment("COLUMNS", "300"),
        code=0,
    ),
    # --- templates ----------------------------------------------------------------------------------------------------
    Case(
        "the model's tokenizer has no chat template, as base models do not. Choose one: `chat_template: chatml`, `llama3`, "
        "`plain`, or `{type: file, path: my.jinja}`.",
        {
            "`chat_template: chatml`": as_written,
            "`plain`": put("chat_template", "plain"),
            "`{type: file, path: my.jinja}`": both(
                file("my.jinja", NO_TOOLS), put("chat_template", {"type": "file", "path": "my.jinja"})
            ),
        },
        recipe={"chat_template": "tokenizer"},
    ),
    Case(
        "the chat template '{}' writes {}, which the model's tokenizer would cut into pieces. Choose `chat_template: plain`, or "
        "a model that has these tokens, or add them: `model.add_tokens: {}`.",
        {"Choose `chat_template: plain`": as_written, "add them: `model.add_tokens: {}`": as_written},
        recipe={"chat_template": "llama3"},
    ),
    Case(
        "into pieces. Choose a template that suits the tokenizer, such as `chat_template: plain`, or a model that has these "
        "tokens, or add them: `model.add_tokens: {}`.",
        {"such as `chat_template: plain`": as_written, "add them: `model.add_tokens: {}`": as_written},
        before=template(NO_TOOLS.replace("im_", "turn_")),
    ),
    Case(
        "Correct `template_kwargs`, or leave it out there.",
        {"leave it out there": leave_out("data.train.template_kwargs")},
        recipe={"data.train.template_kwargs": {"enable_thinkin": False}},
    ),
    Case(
        "`spans.missing_stop: append_eos` adds the tokenizer's EOS (`warn` trains without a stop)",
        {
            "`spans.missing_stop: append_eos`": as_written,
            "`warn` trains without a stop": put("spans.missing_stop", "warn"),
        },
        before=template(NO_STOP.replace("<|{{ m.role }}|>", "{{ m.role }}: ").replace("<|assistant|>", "assistant: ")),
    ),
    Case(
        "`spans.dropped_reasoning: warn` trains without the reasoning",
        {
            "`spans.dropped_reasoning: warn`": as_written,
            "`chat_template: chatml`": as_written,
        },
        rows=[NO_THOUGHTS],
        before=template(NO_TOOLS),
    ),
    Case(
        "`spans.dropped_tools: warn` trains without the tools",
        {"`spans.dropped_tools: warn`": as_written, "`chat_template: chatml`": as_written},
        rows=[{**GOOD, "tools": [TOOL]}],
        before=template(NO_TOOLS),
    ),
    Case(
        "`spans.on_divergence: split` trains such turns in rows of their own",
        {"`spans.on_divergence: split`": as_written},
        recipe={"spans.on_divergence": "error"},
        rows=[{"messages": [USER, REPLY, USER, REPLY]}],
        before=template(LAST_ONLY),
    ),
    # --- the engine, the cache ----------------------------------------------------------------------------------------
    Case(
        "cannot be kept here: {}. Is it read-only, or another user's? Name a folder of your own in the environment variable "
        "SFTPLUG_CACHE.",
        {
            "Name a folder of your own in the environment variable SFTPLUG_CACHE": environment(
                "SFTPLUG_CACHE", "{folder}/own"
            )
        },
        before=both(file("taken", "no folder"), environment("SFTPLUG_CACHE", "{folder}/taken")),
    ),
    Case(
        "data.engine: tiktoken cannot stand in for this tokenizer: it {}. Leave it to `auto`.",
        {"Leave it to `auto`": put("data.engine", "auto")},
        recipe={"data.engine": "tiktoken"},
        before=a_model(lowercase),
    ),
    Case(
        "{}: {}. Set `spans.boundary: split` to tokenize both sides apart.",
        {"Set `spans.boundary: split`": as_written},
        recipe={"spans.boundary": "error"},
        before=template(SPACED),
    ),
    Case(
        "the longest row has {} tokens, and the model was made for {} (`max_position_embeddings` of its configuration). Set "
        "`data.max_length: {}`.",
        {"Set `data.max_length: {}`": both(as_written, put("data.max_loss", 1.0))},
        rows=LONG,
        recipe={"data.max_length": 1024},
        before=a_model(json_in("config.json", max_position_embeddings=128)),
    ),
    Case(
        "the tokenizer has several chat templates ({}); write the one you want to a file.",
        {"write the one you want to a file": template(NO_TOOLS)},
        recipe={"chat_template": "tokenizer"},
        before=a_model(several_templates),
    ),
]
