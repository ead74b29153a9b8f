"""Golden labels: for each format and masking, the token-exact `input_ids` and `labels`, checked in.

After a change that is meant to change them: ``python tests/test_golden.py`` writes them anew, and the diff is
reviewed by eye, in the readable ``trained`` column.
"""

import json
import sys
from pathlib import Path

import pytest

import sftplug

FILE = Path(__file__).parent / "golden" / "labels.json"
TOOL = {"name": "lookup", "description": "Look a word up.", "parameters": {"type": "object", "properties": {}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "lookup", "arguments": {"word": "sea"}}}
ROWS = {
    "text": ("text", {"text": "The sea is wide. Ships sail on it."}),
    "prompt_completion": (
        {"type": "prompt_completion", "as": "text"},
        {"prompt": "Paris is the capital of", "completion": " France."},
    ),
    "prompt_completion_messages": (
        "prompt_completion",
        {
            "prompt": [{"role": "user", "content": "Capital of France?"}],
            "completion": [{"role": "assistant", "content": "Paris."}],
        },
    ),
    "messages": (
        "messages",
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "What is the sea?"}]},
                {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "Look it up."},
                {"role": "tool", "content": "Salt water.", "tool_call_id": "call_1"},
                {"role": "assistant", "content": "Salt water.", "weight": 0.5},
                {"role": "user", "content": "Thanks"},
                {"role": "assistant", "content": "Any time."},
            ],
            "tools": [{"type": "function", "function": TOOL}],
        },
    ),
    "alpaca": (
        "alpaca",
        {
            "instruction": "Translate.",
            "input": "sea",
            "output": "mer",
            "system": "You translate.",
            "history": [["Translate.\n\nsun", "soleil"]],
        },
    ),
    "sharegpt": (
        "sharegpt",
        {
            "conversations": [
                {"from": "human", "value": "What is the sea?"},
                {"from": "function_call", "value": '{"name": "lookup", "arguments": {"word": "sea"}}'},
                {"from": "observation", "value": "Salt water."},
                {"from": "gpt", "value": "Salt water."},
            ],
            "tools": json.dumps([TOOL]),
        },
    ),
    "alternating": ("alternating", {"conversations": ["What is the sea?", "Salt water.", "Thanks", "Any time."]}),
    "transcript": (
        "transcript",
        {
            "text": 'USER: What is the sea?\n\nASSISTANT: <functioncall> {"name": "lookup", "arguments": '
            '\'{"word": "sea"}\'} <|endoftext|>\n\nFUNCTION RESPONSE: Salt water.\n\nASSISTANT: '
            "Salt water. <|endoftext|>",
            "system": f"SYSTEM: Look words up.\n{json.dumps(TOOL)}",
        },
    ),
    "segments": (
        "segments",
        {"segments": [{"text": "Paris is the capital of", "label": False}, {"text": " France.", "label": True}]},
    ),
    "tokenized": ("tokenized", {"input_ids": [97, 98, 99, 100], "labels": [-100, 98, -100, 100]}),
    "columns": (
        {"type": "columns", "user": "Say {word} in {language}.", "assistant": "answer"},
        {"word": "sea", "language": "French", "answer": "mer"},
    ),
}
MASKINGS = {
    "all": "all",
    "assistant": "assistant",
    "completion": "completion",
    "last_assistant": "last_assistant",
    "no_reasoning": ["assistant", {"reasoning": "mask"}],
    "half_tools": ["assistant", {"tool_calls": 0.5}],
    "message_weights": ["assistant", "message_weights"],
    "user_and_assistant": {"roles": ["user", "assistant"]},
}


def prepare_row(folder, format_, row, masking):
    """Return what the trainer gets of one row, and its trained tokens as readable text."""
    import yaml

    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n")
    recipe = {
        "model": {"build": {"type": "tiny", "pretrain_steps": 0, "layers": 1, "hidden_size": 32}},
        "data": {
            "train": {"path": "rows.jsonl", "format": format_},
            "on_empty": "drop",
            "on_unread_column": "report",  # weights that most of these strategies do not read
        },
        "chat_template": "chatml",
        "masking": masking,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    prepared = sftplug.prepare(folder / "recipe.yaml")
    tokenizer, example = prepared.tokenizer, prepared.train[0]
    pieces = [
        tokenizer.decode([token]) if label != -100 else "·"
        for token, label in zip(example["input_ids"], example["labels"], strict=True)
    ]
    return {"trained": "".join(pieces), **example}


def cases():
    """Return every (row, masking) that has something to train.

    A document has no assistant's turn, and tokens say themselves what is trained.
    """
    only = {"text": {"all"}, "tokenized": {"assistant", "completion"}}
    return [(row, masking) for row in ROWS for masking in MASKINGS if masking in only.get(row, MASKINGS)]


@pytest.mark.parametrize(("row", "masking"), cases())
def test_labels_are_the_golden_ones(tmp_path, row, masking):
    golden = json.loads(FILE.read_text())
    assert len(golden) == len(cases())
    assert prepare_row(tmp_path, *ROWS[row], MASKINGS[masking]) == golden[f"{row} x {masking}"]


def test_every_format_and_every_selecting_strategy_has_golden_labels():
    from sftplug import DatasetFormat
    from sftplug.plugin.manager import load_plugins
    from sftplug.plugin.registry import build_registry

    formats = {format_ if isinstance(format_, str) else format_["type"] for format_, _ in ROWS.values()}
    assert formats == set(build_registry(load_plugins()).names(DatasetFormat))


if __name__ == "__main__":
    import tempfile

    golden = {
        f"{row} x {masking}": prepare_row(Path(tempfile.mkdtemp()), *ROWS[row], MASKINGS[masking])
        for row, masking in cases()
    }
    FILE.write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n")
    sys.stdout.write("".join(f"{name}:\n{case['trained']}\n\n" for name, case in golden.items()))
