"""A run's folder alone is enough to prepare its rows again."""

import json

import pytest
import yaml
from conftest import rows, write_rows
from datasets import load_from_disk
from typer.testing import CliRunner

from sftplug import RunDirectory, RunError
from sftplug.cli import app
from sftplug.data.digest import digest

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_train_replay_compare_then_one_byte_of_the_data_changes(recipe_file, run, tmp_path):
    (tmp_path / "shout.py").write_text(
        "import sftplug\nfrom typing import Literal\n"
        "class Shout(sftplug.DatasetFormat):\n    '''Shout.'''\n    type: Literal['shout'] = 'shout'\n"
        "    def to_conversation(self, row):\n"
        "        turns = [sftplug.Message(m['role'], m['content'].upper()) for m in row['messages']]\n"
        "        return sftplug.Conversation(tuple(turns))\n"
        "@sftplug.hookimpl\ndef sftplug_dataset_formats(): return [Shout]\n"
    )
    template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    (tmp_path / "t.jinja").write_text(
        template + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}", encoding="utf-8"
    )
    held_out = write_rows(tmp_path / "eval.jsonl", rows(4, 1))
    file = recipe_file(plugins=["./shout.py"], chat_template={"file": "t.jinja"})
    recipe = yaml.safe_load(file.read_text())
    sources = {"train": {"path": "rows.jsonl", "format": "shout"}, "eval": {"path": held_out.name, "format": "shout"}}
    file.write_text(yaml.safe_dump({**recipe, "data": {**sources, "packing": "rows", "max_length": 96}}))
    output = run(file, "train.max_steps=1").output
    trained = RunDirectory.open(output).data()
    # The folder alone: neither the recipe, nor the plugin's file, nor the template's is needed any more.
    for name in ("shout.py", "t.jinja", file.name):
        (tmp_path / name).unlink()
    result = CliRunner().invoke(app, ["replay", str(output), "--output", str(tmp_path / "again")])
    assert result.exit_code == 0, (result.output, result.exception)
    assert "identical to the byte" in result.output
    for split in ("train", "eval"):
        again = load_from_disk(str(tmp_path / "again" / split))
        assert digest(again) == trained[split]["sha256"]
        assert trained[split]["sha256"] in result.output
    content = held_out.read_bytes()
    held_out.write_bytes(content.replace(b"Question", b"Questiom", 1))
    result = CliRunner().invoke(app, ["replay", str(output), "--output", str(tmp_path / "changed")])
    assert isinstance(result.exception, RunError)
    assert "have changed since it began" in str(result.exception)
    assert "eval.jsonl" in str(result.exception)
    assert "rows.jsonl" not in str(result.exception)
    held_out.write_bytes(content)
    known = json.loads((output / "data.json").read_text())
    known["train"]["sha256"] = "0" * 64
    (output / "data.json").write_text(json.dumps(known))
    result = CliRunner().invoke(app, ["replay", str(output), "--output", str(tmp_path / "other")])
    assert "the prepared train rows are not those of the run" in str(result.exception)


def test_a_hash_knows_nothing_of_batches_on_disk(prepared, recipe_file, tmp_path):
    train = prepared(recipe_file()).train
    train.save_to_disk(str(tmp_path / "copy"), num_shards=3)
    assert digest(load_from_disk(str(tmp_path / "copy"))) == digest(train)
    assert digest(train.select(range(23)).flatten_indices()) != digest(train)
