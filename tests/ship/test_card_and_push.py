"""What a stranger is told, and what is published."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from sftplug import ModelError, RunError
from sftplug.recipe import load_recipe
from sftplug.run import card


def test_the_card_says_what_was_done_and_names_no_folder_of_the_user(lora_run):
    text = (lora_run / "README.md").read_text()
    head = yaml.safe_load(text.split("---")[1])
    assert head == {
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["sftplug", "trl", "sft", "lora"],
    }
    ledger = json.loads((lora_run / "ledger.json").read_text())["splits"]
    for split in ("train", "eval"):
        account = ledger[split][0]
        assert f"| {split} | rows.jsonl | {account['read']} | {account['kept']} | 0 | {account['tokens']:,} |" in text
    assert "| steps | 12 |" in text
    assert "| last loss |" in text
    assert "  format:\n" in text
    assert "learning_rate: 0.01" in text
    for library, version in json.loads((lora_run / "environment.json").read_text())["libraries"].items():
        assert f"| {library} | {version} |" in text
    assert "| adapters | sftplug |" in text
    assert str(lora_run.parent) not in text
    assert str(Path.home()) not in text
    assert "\noutput:" not in text


def test_the_card_of_a_merge_says_how_far_it_is_from_the_adapter(lora_run, command, tmp_path):
    result = command("merge", lora_run, "--output", tmp_path / "merged", "--json")
    apart = json.loads(result.output)["difference"]
    text = (tmp_path / "merged" / "README.md").read_text()
    assert f"on its base by {apart['relative']:.3%} of their standard deviation on average" in text
    assert yaml.safe_load(text.split("---")[1])["library_name"] == "transformers"


def test_a_model_without_a_template_is_asked_to_continue_a_text(recipe_file):
    recipe = load_recipe(str(recipe_file(adapter="lora"))).recipe
    code = card.snippet(recipe, sort="peft", chat=False)
    assert "apply_chat_template" not in code
    compile(code, "card", "exec")


def test_names_of_the_hub_are_told_and_paths_are_not():
    assert card.public({"path": ["/home/me/data/rows.jsonl", "C:\\data\\x\\rows.csv", "~/a/rows.txt"]}) == {
        "path": ["rows.jsonl", "rows.csv", "rows.txt"]
    }
    assert card.public(["Qwen/Qwen3-0.6B", "/help", "a/b", 3]) == ["Qwen/Qwen3-0.6B", "/help", "a/b", 3]


# --- push -------------------------------------------------------------------------------------------------------------


def push(*arguments, **environment):
    known = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_PROGRESS_BARS": "1", **environment}
    return subprocess.run(
        [sys.executable, "-m", "sftplug", "push", *map(str, arguments)],
        env={name: value for name, value in known.items() if value is not None},
        capture_output=True,
        text=True,
        check=False,
    )


def test_push_publishes_model_tokenizer_and_card_and_leaves_the_record_here(full_run, hub, tmp_path):
    address, seen = hub
    run = tmp_path / "run"
    shutil.copytree(full_run, run)
    (run / "checkpoint-4").mkdir()
    (run / "checkpoint-4" / "optimizer.pt").write_bytes(b"x")
    (run / "training_args.bin").write_bytes(b"x")
    (run / ".lock").touch()
    result = push(run, "me/model", "--private", "--json", HF_ENDPOINT=address, HF_TOKEN="hf_login")
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["url"].startswith(address)
    assert set(told["files"]) == set(seen["files"])
    assert set(seen["files"]) == {
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert seen["files"]["model.safetensors"] == (run / "model.safetensors").read_bytes()
    assert 'folder = "me/model"' in seen["files"]["README.md"].decode()
    assert not any(str(full_run.parent).encode() in content for content in seen["files"].values())
    authorization, body = next((token, body) for path, token, body in seen["requests"] if path == "/api/repos/create")
    assert authorization == "Bearer hf_login"
    said = json.loads(body)  # older libraries say it otherwise
    assert said.get("private") is True or said.get("visibility") == "private"


def test_push_without_a_login_or_without_a_hub_says_so(full_run, tmp_path):
    result = push(full_run, "me/model", HF_TOKEN=None, HF_HOME=str(tmp_path))
    assert (result.returncode, result.stderr) == (2, "you are not logged in to the Hub: run `hf auth login` first.\n")
    result = push(full_run, "me/model", HF_TOKEN="hf_x", HF_ENDPOINT="http://127.0.0.1:9")
    assert result.returncode == 2
    assert result.stderr.startswith("me/model cannot be pushed: ")
    assert "hf_x" not in result.stderr


def test_push_refuses_what_nobody_else_could_load(lora_run, command, tmp_path):
    error = command("push", lora_run, "me/model").exception
    assert isinstance(error, ModelError)
    assert "belongs to a base model in a folder of this machine" in str(error)
    error = command("push", tmp_path, "me/model").exception
    assert isinstance(error, RunError)
    assert f"{tmp_path} holds no model" in str(error)
