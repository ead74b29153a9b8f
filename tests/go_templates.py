"""As much of Go's language of templates as a Modelfile has: what the exporter writes, and no more."""

import re
from pathlib import Path

import trl

TRL = Path(trl.__file__).parent / "chat_templates"
SEES = {"idefics3", "llava_next", "smolvlm"}
"""Templates whose turns are lists of parts."""
TEMPLATES = [file.stem for file in sorted(TRL.glob("*.jinja")) if not file.stem.endswith("_training")]
TALK = [
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "Two.\n\nAnd a half."},
    {"role": "user", "content": 'Three {{ x }} "four"?'},
]
ACTION = re.compile(r"\{\{ (.*?) \}\}")


def render(template, messages):
    """Return what a template writes of a conversation."""
    parts = ACTION.split(template)
    return _block(iter(_pairs(parts)), {".Messages": messages})[0]


def _pairs(parts):
    for index, part in enumerate(parts):
        yield ("action" if index % 2 else "text"), part


def _block(parts, scope):
    """Return the text up to the end of a block, and the action that ended it."""
    text = ""
    for kind, part in parts:
        if kind == "text":
            text += part
        elif part in ("end", "else"):
            return text, part
        elif part.startswith("if "):
            text += _choice(parts, scope, _is(part[3:], scope))
        elif part == "range $i, $m := .Messages":
            body = list(_until_end(parts))
            for index, message in enumerate(scope[".Messages"]):
                text += _block(iter(body), {**scope, "$i": index, "$m": message})[0]
        elif part == "$m.Content":
            text += scope["$m"]["content"]
        else:
            raise AssertionError(f"unknown action {part!r}")
    return text, "end"


def _choice(parts, scope, holds):
    first, ended = _block(parts, scope)
    second = _block(parts, scope)[0] if ended == "else" else ""
    return first if holds else second


def _until_end(parts):
    depth = 1
    for kind, part in parts:
        if kind == "action":
            depth += part.startswith(("if ", "range ")) - (part == "end")
        if not depth:
            return
        yield kind, part


def _is(condition, scope):
    if condition.startswith("and "):
        return all(_is(part, scope) for part in re.findall(r"\((eq (?:\([^)]*\)|[^()])*)\)", condition))
    word, left, right = re.fullmatch(r"(eq|ne) (.*) (\S+)", condition).groups()
    values = {
        "$m.Role": lambda: scope["$m"]["role"],
        "$i": lambda: str(scope["$i"]),
        "(index .Messages 0).Role": lambda: scope[".Messages"][0]["role"],
        "(index $.Messages 0).Role": lambda: scope[".Messages"][0]["role"],
    }
    return (values[left]() == right.strip('"')) is (word == "eq")
