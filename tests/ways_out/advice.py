"""Find in the source every sentence that tells a user what to do."""

import ast
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_VERBS = (
    "add|ask|choose|close|correct|cut|delete|drop|free|give|go|install|leave|let|list|lower|make|fix|merge|move|name|pass|"
    "pin|put|raise|read|remove|rename|repair|run|say|set|shorten|split|start|take|train|try|unpack|use|wait|write"
)
# "… is long. Set `x: 1`", "no rows are held out: set `x`", "Leave it out, or set `x`", "Did you mean 'x'?"
_ADVICE = re.compile(
    rf"(?:^|[.:;?!)] |[,;] or |, (?=say|set|use|give|leave)|\n)(?:{_VERBS})\b(?!:)"
    r"|Did you mean|(?-i:Run: )|`sftplug \w",
    re.IGNORECASE,
)
_NOT_ERRORS = ("scaffold/", "testing/")
"""Packages whose texts are not errors: what is generated for plugin authors, and what their tests print."""


@dataclass(frozen=True)
class Advice:
    """A sentence of the source; what is filled in when it is said stands as ``{}``."""

    place: str
    text: str


def all_advice():
    """Return every text that offers a way out."""
    return [item for item in all_texts() if _ADVICE.search(item.text)]


def all_texts():
    """Return every text of more than a word under `sftplug` and `plugins`.

    What distributions of their own say, which are not installed here, their own tests follow.
    """
    own = {file.parent for file in (ROOT / "plugins").glob("*/pyproject.toml")}
    files = [file for root in ("sftplug", "plugins") for file in sorted((ROOT / root).rglob("*.py"))]
    files = [file for file in files if own.isdisjoint(file.parents)]
    found = [item for file in files if not any(part in str(file) for part in _NOT_ERRORS) for item in _texts_in(file)]
    return list({item.text: item for item in found}.values())


def _texts_in(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    skipped = _docstrings_and_help(tree)
    for node in ast.walk(tree):
        text = _text(node) if id(node) not in skipped else None
        if text and " " in text.strip():
            yield Advice(f"{file.relative_to(ROOT)}:{node.lineno}", text)


def _text(node):
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return None


def _docstrings_and_help(tree):
    """Return the nodes that are not messages: strings on their own, `help=`, and the literal parts of f-strings."""
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(id(node.value))
        if isinstance(node, ast.keyword) and node.arg == "help":
            skipped |= {id(part) for part in ast.walk(node.value)}
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in node.values if isinstance(part, ast.Constant)}
    return skipped


def pattern(text):
    """Return a regular expression for what `text` looks like when it is said."""
    return re.compile(".*?".join(re.escape(part) for part in text.split("{}")), re.DOTALL)
