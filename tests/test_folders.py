"""A folder that is named as a model and is none: what it is, and a way on that works when it is followed."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import rows, write_rows

from sftplug import ModelError
from sftplug.model.folders import refuse_no_model


def said(path):
    with pytest.raises(ModelError) as caught:
        refuse_no_model(str(path))
    return str(caught.value)


def made(folder, **files):
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name.replace("_json", ".json").replace("_gguf", ".gguf")).write_text(text)
    return folder


def test_what_is_no_model_is_called_what_it_is(tmp_path):
    assert said(made(tmp_path / "empty")).endswith("empty is not a model: the folder is empty.")
    assert "holds a GGUF file." in said(made(tmp_path / "g", x_gguf=""))
    assert "x.gguf is a GGUF file." in said(tmp_path / "g" / "x.gguf")
    assert "it holds a tokenizer, and no config.json" in said(made(tmp_path / "t", tokenizer_json="{}"))
    refuse_no_model(str(tmp_path / "t"), tokenizer_does=True)
    assert "it has no config.json, and holds notes." in said(made(tmp_path / "n", notes=""))
    assert "config.json is a file. Name the folder" in said(made(tmp_path / "c", config_json="{}") / "config.json")
    refuse_no_model(str(tmp_path / "c"))
    refuse_no_model("org/name-on-the-hub")
    write_rows(made(tmp_path / "rows") / "mine.jsonl", rows(2))
    assert f"Rows are named in `data.train`: `{{path: {tmp_path / 'rows'}}}`." in said(tmp_path / "rows")
    made(tmp_path / "snapshots" / "abc", config_json="{}")
    assert f"Name one: {tmp_path / 'snapshots' / 'abc'}." in said(tmp_path / "snapshots")
    assert "adapter_config.json cannot be read: " in said(made(tmp_path / "damaged", adapter_config_json="{"))


@pytest.mark.parametrize("name", ["preview", "prepare", "plan"])
def test_a_folder_with_an_adapter_stands_for_its_base(name, lora_run, recipe_file, command, tmp_path):
    more = ["--output", tmp_path / "rows"] if name == "prepare" else []
    result = command(name, recipe_file(model=str(lora_run), adapter="lora"), *more)
    assert result.exit_code == 0, result.exception


def trained_on(command, recipe_file, text, output):
    """Train on what an error says to name as `model:`; return the folder of the run."""
    named = re.search(r"`model: (\S+?)`", text)[1]
    result = command("train", recipe_file(model=named, output=str(output)))
    assert result.exit_code == 0, result.exception
    return output


@pytest.mark.parametrize(("base", "gone"), [("/gone/base", True), ("org/base", False)])
def test_an_adapter_whose_base_is_gone_says_so(tmp_path, base, gone):
    text = said(made(tmp_path / "mine", adapter_config_json=json.dumps({"base_model_name_or_path": base})))
    assert ("Nothing is at that place, and before its base is there again" in text) == gone


def test_an_adapter_on_the_hub_is_called_one(tmp_path):
    folder = tmp_path / "models--me--mine"
    made(folder / "snapshots" / ("a" * 40), adapter_config_json='{"base_model_name_or_path": "them/base"}')
    made(folder / "refs", main="a" * 40)
    code = "from sftplug.model.folders import refuse_adapter_on_hub as r\nr('them/nothing', None)\nr('me/mine', None)"
    env = {**os.environ, "HF_HUB_CACHE": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert "ModelError: model: me/mine is an adapter of them/base, and no model." in result.stderr
    assert "then `model: ./mine-merged`." in result.stderr


def test_a_trained_prompt_has_no_way_into_the_weights(lora_run, tmp_path):
    plain = made(tmp_path / "prompt")
    config = {**json.loads((lora_run / "adapter_config.json").read_text()), "peft_type": "PROMPT_TUNING"}
    (plain / "adapter_config.json").write_text(json.dumps(config))
    text = said(plain)
    assert "A trained prompt cannot become part of the weights. To train another adapter beside the same base" in text
    assert "merge" not in text


def test_a_run_without_a_result_is_gone_on_with(recipe_file, command, tmp_path):
    (tmp_path / "mine.py").write_text(STOPS)
    result = command("train", recipe_file(plugins=["./mine.py"], callbacks=["stops"]))
    assert result.exit_code != 0
    text = str(command("check", recipe_file(model=str(tmp_path / "out"), output=str(tmp_path / "other"))).exception)
    assert "it is the folder of a run without a result, which is failed: " in text
    go_on = re.search(r"`(sftplug train .*?)` resumes", text)[1]
    (tmp_path / "stop").touch()
    result = command(*shlex.split(go_on)[1:])
    assert result.exit_code == 0, result.exception


STOPS = '''
from pathlib import Path
from typing import Literal
import sftplug

class Stops(sftplug.Callback):
    """Stops the run unless a file is there."""

    type: Literal["stops"] = "stops"

    def trainer_callback(self):
        from transformers import TrainerCallback

        class Stop(TrainerCallback):
            def on_step_end(self, args, state, control, **kwargs):
                if not (Path(args.output_dir).parent / "stop").exists():
                    raise RuntimeError("stopped on purpose")

        return Stop()

@sftplug.hookimpl
def sftplug_callbacks():
    return [Stops]
'''


def test_a_finished_run_says_how_to_train_on_and_that_works(full_run, lora_run, recipe_file, command, tmp_path):
    text = str(command("train", recipe_file(adapter="full", output=str(full_run))).exception)
    assert "holds a finished run" in text
    assert "--overwrite" in text
    assert f"To train on from its weights: `model: {full_run}`, and another --output." in text
    trained_on(command, recipe_file, text, tmp_path / "second")
    assert Path(tmp_path / "second" / "run.json").is_file()
    text = str(command("train", recipe_file(adapter="lora", output=str(lora_run))).exception)
    assert f"To train on its adapter: `model: {lora_run}`, and another --output" in text
