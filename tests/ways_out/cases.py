"""A way out that an error offers, and how a reader who takes it at its word goes it."""

import copy
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from conftest import SHORT, TINY, rows
from typer.testing import CliRunner

from ways_out.advice import pattern

USER, REPLY = {"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hi."}
BASE = {
    "model": {"build": TINY},
    "data": {"train": {"path": "rows.jsonl", "format": "messages"}, "max_length": 256},
    "chat_template": "chatml",
    "quantization": "fp32",
    "train": {**SHORT, "max_steps": 2},
}
"""A recipe with which nothing is wrong."""


@dataclass
class Situation:
    """What a user has before them: a folder, a recipe, rows, and the command that was refused."""

    folder: Path
    recipe: dict[str, Any]
    rows: list[Any]
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    cut: int = 0
    """How many bytes are missing at the end of the rows."""

    def run(self) -> tuple[int, str]:
        """Write down the recipe and the rows, run the command, and return its exit code and what it says."""
        from sftplug.cli import app

        self.write()
        result = CliRunner(env=self.environment).invoke(app, self.command)
        error = result.exception if result.exit_code and not isinstance(result.exception, SystemExit) else ""
        notes = "\n".join(getattr(error, "__notes__", ()))
        return result.exit_code, _unboxed(f"{result.output}\n{error}\n{notes}")

    def write(self) -> None:
        """Write down the recipe and the rows."""
        (self.folder / "recipe.yaml").write_text(yaml.safe_dump(self.recipe, sort_keys=False), encoding="utf-8")
        if self.rows is not None:
            lines = [row if isinstance(row, str) else json.dumps(row) for row in self.rows]
            text = "\n".join(lines) + "\n"
            (self.folder / "rows.jsonl").write_text(text[: len(text) - self.cut], encoding="utf-8")


def _unboxed(text: str) -> str:
    """Return the text of a usage error without the box that is drawn around it, which breaks its lines."""
    return re.sub(r"\s*│\n│\s*", " ", text)


Edit = Callable[[Situation, str], None]
"""Changes the situation as the sentence, which it is given, says."""


@dataclass(frozen=True)
class Case:
    """An error, and every way out that it offers."""

    says: str
    """Part of the text in the source, ``{}`` for what is filled in; no other text has it."""
    ways: Mapping[str, Edit]
    """What is said (``{}`` for what is filled in) -> what a reader who does just that changes."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Dotted path -> value that is laid over `BASE`; None leaves the key out."""
    rows: Sequence[Any] | None = None
    command: Sequence[str] = ("check", "recipe.yaml")
    before: Edit | None = None
    """What has to be there first: files, a run."""
    code: int = 2
    """0 where it is a notice, and the command goes on."""
    ends: str | None = None
    """What is said (a regular expression) after a way was gone, where success needs what this machine has not."""

    def situation(self, folder: Path) -> Situation:
        """Return a fresh situation in which the error is said."""
        made = Situation(folder, copy.deepcopy(BASE), list(rows() if self.rows is None else self.rows), [*self.command])
        for path, value in self.recipe.items():
            set_at(made.recipe, path, copy.deepcopy(value))
        if self.before is not None:
            self.before(made, "")
        return made


def set_at(recipe: Any, path: str, value: Any) -> None:
    """Set the value at a dotted path such as ``data.train.0.path``; None removes it."""
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part, following in zip(parents, [*parents, last][1:], strict=True):
        if isinstance(recipe, dict) and not isinstance(recipe.get(part), dict | list):
            bare = recipe.get(part)  # a bare name becomes a mapping with its options
            recipe[part] = {"type": bare} if isinstance(bare, str) else [] if isinstance(following, int) else {}
        recipe = recipe[part]
    if isinstance(recipe, list) and last == len(recipe):
        recipe.append(value)
    elif value is None and isinstance(recipe, dict):
        recipe.pop(last, None)
    else:
        recipe[last] = value


# --- what a reader does -----------------------------------------------------------------------------------------------


def as_written(situation: Situation, sentence: str) -> None:
    """Set what stands between backticks in `sentence`, as in ``Set `data.max_length: 300```."""
    for path, value in re.findall(r"`([A-Za-z_][\w.]*): ([^`]+)`", sentence):
        # In a recipe `no` is a word, as YAML 1.2 has it.
        set_at(situation.recipe, path, value if value in ("no", "yes", "on", "off") else yaml.safe_load(value))


def first_as_written(situation: Situation, sentence: str) -> None:
    """Set what stands first between backticks, where the next one is another way out."""
    as_written(situation, "`".join(sentence.split("`")[:3]))


def at(prefix: str) -> Edit:
    """Set what stands between backticks, of the section `prefix`, which the error names at its beginning."""

    def edit(situation: Situation, sentence: str) -> None:
        for path, value in re.findall(r"`([A-Za-z_][\w.]*): ([^`]+)`", sentence):
            set_at(situation.recipe, f"{prefix}.{path}", yaml.safe_load(value))

    return edit


def put(path: str, value: Any) -> Edit:
    """Write `value` at `path`."""
    return lambda situation, sentence: set_at(situation.recipe, path, value)


def leave_out(*paths: str) -> Edit:
    """Remove keys of the recipe."""

    def edit(situation: Situation, sentence: str) -> None:
        for path in paths:
            set_at(situation.recipe, path, None)

    return edit


def both(*edits: Edit) -> Edit:
    """Do one thing after the other."""

    def edit(situation: Situation, sentence: str) -> None:
        for part in edits:
            part(situation, sentence)

    return edit


def without(*options: str) -> Edit:
    """Leave options of the command line out."""

    def edit(situation: Situation, sentence: str) -> None:
        for option in options:
            start = situation.command.index(option)
            has_value = len(situation.command) > start + 1 and not situation.command[start + 1].startswith("-")
            del situation.command[start : start + 1 + has_value]

    return edit


def with_option(*options: str) -> Edit:
    """Add options to the command line; one that is there gets the new value."""

    def edit(situation: Situation, sentence: str) -> None:
        if options[0] in situation.command:
            start = situation.command.index(options[0])
            del situation.command[start : start + len(options)]
        situation.command += options

    return edit


def run_first(*command: str) -> Edit:
    """Run another command, which must succeed."""

    def edit(situation: Situation, sentence: str) -> None:
        code, text = Situation(situation.folder, situation.recipe, situation.rows, list(command)).run()
        assert code == 0, text

    return edit


def _trained(situation: Situation, sentence: str) -> Path:
    """Return the folder of a finished run of the recipe, which is trained once a session."""
    name = hashlib.sha256(json.dumps(situation.recipe).encode()).hexdigest()[:12]
    output = situation.folder.parent / f"run-{name}"
    if not output.exists():
        run_first("train", "recipe.yaml", "--output", str(output))(situation, sentence)
    return output


def of_a_finished_run(situation: Situation, sentence: str) -> None:
    """Let ``RUN`` in the command be the folder of a finished run of the recipe."""
    output = str(_trained(situation, sentence))
    situation.command = [output if part == "RUN" else part for part in situation.command]


def after_a_crash(situation: Situation, sentence: str) -> None:
    """Leave in ``out`` what a run leaves that ended after the checkpoint of its first step."""
    out = situation.folder / "out"
    shutil.copytree(_trained(situation, sentence), out)
    shutil.rmtree(out / "checkpoint-2")
    state = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**state, "state": "failed", "reason": "the power went", "steps": 1}))


def a_model(edit: Callable[[Path], object]) -> Edit:
    """Let the recipe name a folder with the tiny model, which `edit` has changed."""

    def change(situation: Situation, sentence: str) -> None:
        from sftplug.model.loading import base_model_path
        from sftplug.recipe import load_recipe

        situation.write()
        shutil.copytree(base_model_path(load_recipe("recipe.yaml").recipe), "model")
        edit(Path("model"))
        situation.recipe["model"] = {"name_or_path": "./model"}

    return change


def json_in(name: str, **values: Any) -> Callable[[Path], object]:
    """Set values in a JSON file of a model's folder."""

    def edit(folder: Path) -> None:
        known = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
        (folder / name).write_text(json.dumps({**known, **values}))

    return edit


def run_instead(*command: str) -> Edit:
    """Run another command in place of the one that was refused."""

    def edit(situation: Situation, sentence: str) -> None:
        situation.command = list(command)

    return edit


def file(name: str, content: Any) -> Edit:
    """Write a file: text, bytes, or an object as JSON."""

    def edit(situation: Situation, sentence: str) -> None:
        path = situation.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content if isinstance(content, str | bytes) else json.dumps(content)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())

    return edit


def mend_rows(*data: Any) -> Edit:
    """Write other rows."""

    def edit(situation: Situation, sentence: str) -> None:
        situation.rows, situation.cut = list(data), 0

    return edit


def environment(name: str, value: str) -> Edit:
    """Set an environment variable; ``{folder}`` is the folder at hand."""

    def edit(situation: Situation, sentence: str) -> None:
        situation.environment[name] = value.format(folder=situation.folder)

    return edit


def go(case: Case, phrase: str, folder: Path) -> None:
    """Meet the error, go the way out that it offers, and look that the error is gone."""
    os.chdir(folder)
    situation = case.situation(folder)
    code, text = situation.run()
    assert code in (case.code, 1 if case.code else 0), f"nothing is refused: {text}"
    # A console that other tests made before breaks lines at its own width.
    text = text if pattern(case.says).search(text) else " ".join(text.split())
    assert pattern(case.says).search(text), f"is not said:\n{text}"
    sentence = pattern(phrase).search(text)
    assert sentence, f"the way is not offered:\n{text}"
    case.ways[phrase](situation, _to_its_end(text, sentence))
    code, after = situation.run()
    assert not pattern(case.says).search(" ".join(after.split())), f"the same error again:\n{after}"
    if case.ends is None:
        assert code == 0, f"another error:\n{after}"
    else:
        assert re.search(case.ends, after), after


def _to_its_end(text: str, match: re.Match[str]) -> str:
    """Return what was matched with the rest of its line, where a value may stand that ``{}`` left open."""
    return text[match.start() : max(match.end(), (text + "\n").index("\n", match.end()))]
