"""Every shape of rows in `zoo/`: its labels are right, or it is refused and each way out that is offered is true."""

import re
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from conftest import TINY
from ways_out.cases import set_at

import sftplug
from sftplug import SftplugError

ZOO = Path(__file__).parent / "zoo"
BASE = {"model": {"build": TINY}, "chat_template": "chatml", "quantization": "fp32"}
OUTCOME = {"trained", "shows", "hides", "noted", "dropped", "unread"}
"""What may be said of rows that go in."""
KEYS = {"shape": OUTCOME | {"shape", "refused", "ways"}, "way": OUTCOME | {"says", "at", "files", "leave_out", "steps"}}


@dataclass
class Shape:
    """A shape in a folder of its own, which may be changed."""

    folder: Path
    recipe: dict
    expected: dict

    @classmethod
    def copy(cls, name, folder):
        """Copy the files of the zoo to `folder`, and read them."""
        shutil.copytree(ZOO / name, folder, dirs_exist_ok=True)
        recipe, expected = (read(folder / f"{file}.yaml") for file in ("recipe", "expected"))
        return cls(folder, {**BASE, **recipe}, expected)

    def prepared(self):
        """Return what the trainer gets."""
        file = self.folder / "laid_over.yaml"
        file.write_text(yaml.safe_dump({k: v for k, v in self.recipe.items() if v is not None}, sort_keys=False))
        return sftplug.prepare(sftplug.load(file))

    def refusal(self):
        """Return the words with which it is refused, in one line."""
        with pytest.raises(SftplugError) as caught:
            self.prepared()
        return " ".join(str(caught.value).split())

    def go(self, way, said):
        """Do what the message says, as it is written there."""
        assert way["says"] in said, f"is not offered: {said}"
        for name, other in way.get("files", {}).items():
            shutil.copy(self.folder / other, self.folder / name)
        for path in way.get("leave_out", []):
            set_at(self.recipe, path, None)
        for key, value in yaml.safe_load(way["says"]).items() if "at" in way else ():
            path = f"{way['at']}.{key}".lstrip(".")
            there = get_at(self.recipe, path)
            set_at(self.recipe, path, [*there, *value] if isinstance(there, list) else value)


def read(file):
    """Return what a YAML file says, as recipes are read: `no` is a word."""
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def get_at(recipe, path):
    """Return the value at a dotted path; None where there is none."""
    for part in path.split("."):
        recipe = recipe.get(part) if isinstance(recipe, dict) else None
    return recipe


def names():
    return sorted(file.parent.name for file in ZOO.glob("*/expected.yaml"))


def ways():
    return [
        (name, index) for name in names() for index, _ in enumerate(read(ZOO / name / "expected.yaml").get("ways", []))
    ]


@pytest.mark.parametrize("name", names())
def test_a_shape_goes_in_whole_or_is_refused_in_words(name, tmp_path):
    shape = Shape.copy(name, tmp_path)
    assert shape.expected.keys() <= KEYS["shape"], shape.expected.keys() - KEYS["shape"]
    if "refused" not in shape.expected:
        compare(shape.prepared(), shape.expected)
        return
    said = shape.refusal()
    missing = [text for text in shape.expected["refused"] if text not in said]
    assert not missing, f"{missing} are not said: {said}"
    assert shape.expected["ways"], "a refusal offers a way out, and the zoo goes it"


@pytest.mark.parametrize(("name", "index"), ways())
def test_a_way_out_that_is_offered_leads_to_the_right_labels(name, index, tmp_path):
    shape = Shape.copy(name, tmp_path)
    way = shape.expected["ways"][index]
    assert way.keys() <= KEYS["way"], way.keys() - KEYS["way"]
    said = shape.refusal()
    for step in way.get("steps", [way]):
        shape.go(step, said)
    compare(shape.prepared(), way)


def compare(prepared, expected):
    """Hold prepared rows against what is expected of them."""
    assert "trained" in expected, "say what is trained"
    accounts = [account for _, account in prepared.ledger.accounts()]
    found = {split: trained(rows, prepared.tokenizer) for split, rows in splits(prepared).items()}
    wanted = expected["trained"] if isinstance(expected["trained"], dict) else {"train": expected["trained"]}
    assert found == wanted
    text = "\n".join(prepared.tokenizer.decode(ids) for rows in splits(prepared).values() for ids in rows["input_ids"])
    assert not [said for said in expected.get("shows", []) if said not in text], text
    assert not [said for said in expected.get("hides", []) if said in text], text
    counts = {
        key: dict(sum((getattr(account, key) for account in accounts), Counter())) for key in ("noted", "dropped")
    }
    assert counts == {key: expected.get(key, {}) for key in counts}, [account.reasons for account in accounts]
    assert [name for account in accounts for name in (*account.unread, *account.unread_keys)] == expected.get(
        "unread", []
    )


def splits(prepared):
    return {"train": prepared.train, **({"eval": prepared.eval} if prepared.eval is not None else {})}


def trained(rows, tokenizer):
    """Return the decoded stretches of trained tokens, row after row."""
    return [[tokenizer.decode(run) for run in runs(row)] for row in rows]


def runs(row):
    """Yield the ids of each stretch of trained tokens."""
    marks = "".join("x" if label != -100 else "." for label in row["labels"])
    for match in re.finditer("x+", marks):
        yield row["input_ids"][match.start() : match.end()]
