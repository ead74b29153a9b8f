"""Recipes of somebody who means harm, or who was careless: what each must be told."""

import os
from dataclasses import dataclass
from typing import Any

GOOD = """\
model: {build: {type: tiny, pretrain_steps: 0, layers: 1, hidden_size: 32}}
data:
  train: {path: rows.jsonl, format: messages}
chat_template: chatml
quantization: fp32
"""
ROW = '{"messages": [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "%s"}]}\n'


@dataclass(frozen=True)
class Hostile:
    """A recipe, what lies beside it, and words of the answer; `code` 0 where it is harmless after all."""

    text: str | bytes
    words: str
    files: dict[str, Any] | None = None
    """Name -> text, or what makes the file."""
    reply: str = "Ho."
    code: int = 2


def laughs(depth=9, width=10):
    lines = ["a0: &a0 [lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, depth)]
    return GOOD + "train:\n" + "\n".join("  " + line for line in lines) + "\n"


def chain(count):
    """Return files of which each extends the next."""
    files = {f"r{n}.yaml": f"extends: r{n + 1}.yaml\n" for n in range(count)}
    return {**files, f"r{count}.yaml": GOOD}


def nested(opening, closing, levels=5_000):
    return f"{GOOD}train: {opening * levels}1{closing * levels}\n"


RECIPES = {
    # --- growth -------------------------------------------------------------------------------------------------------
    "billion laughs": Hostile(laughs(), "alias"),
    "billion laughs in mappings": Hostile(
        GOOD
        + "train:\n  a0: &a0 {x: 1}\n"
        + "".join(f"  a{n}: &a{n} {{{', '.join(f'k{i}: *a{n - 1}' for i in range(9))}}}\n" for n in range(1, 9)),
        "alias",
    ),
    "one long text, many aliases": Hostile(
        f"{GOOD}train:\n  x: &x {'y' * 100_000}\n  z: [{', '.join(['*x'] * 50_000)}]\n", "alias"
    ),
    "an alias of itself in a list": Hostile(f"{GOOD}train: &t\n  a: [*t]\n", "inside of what it repeats"),
    "an alias of itself as a mapping": Hostile(f"{GOOD}train: &t\n  a: *t\n", "inside of what it repeats"),
    "merge keys upon merge keys": Hostile(
        GOOD + "x0: &x0 {a: 1}\n" + "".join(f"x{n}: &x{n} {{<<: [*x{n - 1}, *x{n - 1}]}}\n" for n in range(1, 40)),
        "`<<` is not read",
    ),
    "200,000 keys": Hostile(
        GOOD + "train:\n" + "".join(f"  k{n}: 1\n" for n in range(200_000)), "longer than 500,000 bytes"
    ),
    "200,000 items": Hostile(GOOD + "train:\n  x:\n" + "    - 1\n" * 200_000, "longer than 500,000 bytes"),
    "a key of a megabyte": Hostile(f"{GOOD}{'k' * 1_000_000}: 1\n", "longer than 500,000 bytes"),
    "a value of 10 MB": Hostile(f"{GOOD}output: {'o' * 10_000_000}\n", "longer than 500,000 bytes"),
    "lists in lists": Hostile(nested("[", "]"), "nests more than 50|longer than 500,000 bytes"),
    "mappings in mappings": Hostile(nested("{a: ", "}"), "nests more than 50|longer than 500,000 bytes"),
    "indented for ever": Hostile(
        GOOD + "train:\n" + "".join(f"{' ' * n}a:\n" for n in range(1, 1_500)),
        "nests more than 50|longer than 500,000 bytes",
    ),
    "quotes in an override-like key": Hostile(f'{GOOD}"train.x[0].y": 1\n', "unknown key"),
    # --- numbers ------------------------------------------------------------------------------------------------------
    "a number of 5,000 digits": Hostile(f"{GOOD}train: {{max_steps: {'9' * 5_000}}}\n", "number of 5,000 characters"),
    "a number of 400 digits": Hostile(f"{GOOD}train: {{learning_rate: {'9' * 400}}}\n", "number of 400 characters"),
    "a float beyond all bounds": Hostile(f"{GOOD}train: {{learning_rate: 1e99999}}\n", "too large"),
    "a rate that is not a number": Hostile(f"{GOOD}train: {{learning_rate: .nan}}\n", "learning_rate"),
    "an infinite rate": Hostile(f"{GOOD}train: {{learning_rate: .inf}}\n", "learning_rate"),
    "an octal of YAML 1.1": Hostile(f"{GOOD}train: {{max_steps: 010}}\n", "", code=0),
    "a sexagesimal of YAML 1.1": Hostile(f"{GOOD}train: {{max_steps: 1:30}}\n", "max_steps"),
    "a yes of YAML 1.1": Hostile(f"{GOOD}train: {{use_cpu: yes}}\n", "use_cpu"),
    "a date": Hostile(f"{GOOD}train: {{max_steps: 2026-11-29}}\n", "max_steps"),
    "a length below zero": Hostile(
        GOOD.replace("format: messages}", "format: messages}\n  max_length: -5"), "max_length"
    ),
    # --- what is not a recipe --------------------------------------------------------------------------------------------
    "nothing": Hostile("", "empty|required|nothing"),
    "a comment": Hostile("# nothing\n", "empty|required|nothing"),
    "a list": Hostile("[1, 2]\n", "mapping"),
    "a word": Hostile("hello\n", "mapping"),
    "two documents": Hostile(f"{GOOD}---\n{GOOD}", "document"),
    "not closed": Hostile(f"{GOOD}train: {{max_steps: 1\n", "recipe.yaml"),
    "tabs": Hostile(f"{GOOD}train:\n\tmax_steps: 1\n", "tab|recipe.yaml"),
    "a key that stands twice": Hostile(f"{GOOD}model: other\n", "twice"),
    "a key that is a list": Hostile(f"{GOOD}? [a, b]\n: 1\n", "key"),
    "a key that is null": Hostile(f"{GOOD}~: 1\n", "key"),
    "a NUL": Hostile(GOOD.encode() + b"output: a\x00b\n", "recipe.yaml"),
    "another encoding": Hostile(GOOD.encode() + "output: é\n".encode("latin-1"), "UTF-8"),
    "half a character": Hostile(GOOD + 'output: "\\ud800"\n', "U\\+D800|character|output"),
    "an escape sequence for the terminal": Hostile(GOOD + '"\\e]0;owned\\a\\e[2J": 1\n', "unknown key"),
    "an object of Python": Hostile(f"{GOOD}train: !!python/object/apply:os.system ['touch owned']\n", "tag|python"),
    "a tag of nobody's": Hostile(f"{GOOD}train: !mine {{a: 1}}\n", "tag"),
    "a directive": Hostile(f"%YAML 9.9\n---\n{GOOD}", "recipe.yaml|YAML"),
    # --- other files --------------------------------------------------------------------------------------------------
    "it extends itself": Hostile("extends: recipe.yaml\n", "extends"),
    "two extend each other": Hostile("extends: b.yaml\n", "extends", {"b.yaml": "extends: recipe.yaml\n"}),
    "1,200 extend each other": Hostile("extends: r0.yaml\n", "extends", chain(1_200)),
    "it extends a folder": Hostile("extends: folder\n", "folder", {"folder/x": "1"}),
    "it extends a device": Hostile("extends: /dev/zero\n", "file"),
    "it extends a pipe": Hostile("extends: pipe\n", "file", {"pipe": os.mkfifo}),
    "rows from a device": Hostile(GOOD.replace("rows.jsonl", "/dev/zero"), "file"),
    "rows from a pipe that nobody writes to": Hostile(
        GOOD.replace("rows.jsonl", "pipe.jsonl"), "file", {"pipe.jsonl": os.mkfifo}
    ),
    "a template from a device": Hostile(GOOD.replace("chatml", "{type: file, path: /dev/zero}"), "file"),
    "a template from a pipe": Hostile(GOOD.replace("chatml", "{type: file, path: pipe}"), "file", {"pipe": os.mkfifo}),
    "a plugin that is not a Python": Hostile(GOOD + "plugins: [./notes.txt]\n", "notes", {"notes.txt": "hello"}),
    "a plugin from a device": Hostile(GOOD + "plugins: [/dev/zero]\n", "plugin"),
    # --- options that reach further -----------------------------------------------------------------------------------
    "a pattern that takes for ever": Hostile(
        GOOD + "masking: [assistant, {regex: {pattern: '(a+)+$'}}]\n", "", reply="a" * 40 + "!", code=0
    ),
    "a pattern that is none": Hostile(GOOD + "masking: [assistant, {regex: {pattern: '('}}]\n", "pattern"),
    "a pattern that repeats a billion times": Hostile(
        GOOD + "masking: [assistant, {regex: {pattern: '(((a{1000}){1000}){1000})'}}]\n", "pattern|large"
    ),
    "a kernel of the Hub": Hostile(
        GOOD.replace("tiny,", "tiny,").replace("model: {build", "model: {attn_implementation: someone/kernel, build"),
        "kernel",
    ),
    "an output that is not a path": Hostile(GOOD + 'output: "a\\0b"\n', "holds a NUL"),
    "a plugin that is not a path": Hostile(GOOD + 'plugins: ["./a\\0.py"]\n', "holds a NUL"),
    "settings from a device": Hostile(GOOD + "train: {deepspeed: /dev/zero}\n", "train.deepspeed.*is not a file"),
    "settings from a pipe": Hostile(GOOD + "train: {fsdp_config: pipe}\n", "is not a file", {"pipe": os.mkfifo}),
    "an upload": Hostile(GOOD + "train: {push_to_hub: true}\n", "push"),
    "a token": Hostile(GOOD + "train: {hub_token: hf_secret}\n", "hub_token"),
}
