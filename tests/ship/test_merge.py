"""A merged model says what its adapter said, or there is none."""

import json
import shutil

import pytest
import torch
from conftest import rows, train_run, write_rows

from sftplug import ModelError, RunError

PLUGIN = """
import sftplug
from peft import LoraConfig, PromptTuningConfig

class Forgetful(sftplug.Adapter):
    \"\"\"A LoRA whose merge forgets it.\"\"\"
    type: str = "forgetful"

    def peft_config(self):
        return LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM")

    def merge(self, model):
        return model.unload()

class Prompt(sftplug.Adapter):
    \"\"\"A trained prompt.\"\"\"
    type: str = "prompt"

    def peft_config(self):
        return PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM")

class Beside(Forgetful):
    \"\"\"A LoRA whose author says that it stays beside the weights.\"\"\"
    type: str = "beside"

    @property
    def mergeable(self):
        return False

@sftplug.hookimpl
def sftplug_adapters():
    return [Forgetful, Prompt, Beside]
"""


def logits(model):
    with torch.no_grad():
        return model.eval()(torch.arange(5, 25)[None]).logits.float()


def test_a_qlora_merges_onto_the_dequantized_base_in_bf16_and_says_how_far_it_is(qlora_run, command, tmp_path):
    result = command("merge", qlora_run, "--output", tmp_path / "merged", "--json")
    assert result.exit_code == 0, result.exception
    record = json.loads(result.output)
    assert record == json.loads((tmp_path / "merged" / "merge.json").read_text())
    assert (record["base"], record["onto"]) == ("built: tiny", "the dequantized nf4 base")
    assert (record["dtype"], record["adapter"], record["compared_on"]) == ("bfloat16", "qlora", "held-out rows")
    assert 0 < record["difference"]["relative"] < 0.01
    assert record["difference"]["same_top"] == 1.0
    assert record["libraries"]["peft"]
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["dtype"] == "bfloat16"


def test_a_merge_into_four_bits_is_made_only_when_asked_for_and_refused_for_what_it_loses(qlora_run, command, tmp_path):
    result = command("merge", qlora_run, "--output", tmp_path / "merged", "--in-place")
    assert isinstance(result.exception, ModelError)
    text = str(result.exception)
    assert text.startswith("the merged model does not say what the adapter says: its logits differ by ")
    assert "and 5.00% is allowed. Nothing was kept. Leave out --in-place" in text
    assert list(tmp_path.iterdir()) == []
    result = command("merge", qlora_run, "--output", tmp_path / "merged", "--quantized", "--tolerance", "0.5")
    assert result.exit_code == 0, result.exception
    assert "merged qlora onto the nf4 weights" in result.output
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["quantization_config"]["load_in_4bit"]


def test_a_qlora_merges_onto_the_original_base_when_asked_and_says_how_far_that_is(qlora_run, command, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    arguments = ("merge", qlora_run, "--base", "original", "--output", tmp_path / "merged")
    text = str(command(*arguments, "--tolerance", "0.02").exception)
    assert "its logits differ by " in text
    assert "Nothing was kept. Leave out --base original: the adapter was trained on the quantized weights" in text
    assert list(tmp_path.iterdir()) == []
    result = command(*arguments, "--tolerance", "0.5", "--json")
    assert result.exit_code == 0, result.exception
    record = json.loads(result.output)
    assert (record["onto"], record["dtype"]) == ("the original base of the nf4 one", "bfloat16")
    assert 0.02 < record["difference"]["relative"] < 0.5
    # It is the base as it is stored, with the update on it.
    adapter = json.loads((qlora_run / "adapter_config.json").read_text())
    base = AutoModelForCausalLM.from_pretrained(adapter["base_model_name_or_path"], dtype=torch.bfloat16)
    expected = PeftModel.from_pretrained(base, qlora_run).merge_and_unload(safe_merge=True)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert merged.dtype == torch.bfloat16
    assert torch.equal(logits(merged), logits(expected))


def test_a_lora_merges_exactly_and_plain_transformers_loads_it(lora_run, command, tmp_path):
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    result = command("merge", lora_run, "--output", tmp_path / "merged")
    assert result.exit_code == 0, result.exception
    assert "merged lora onto the base in float32" in result.output
    assert json.loads((tmp_path / "merged" / "merge.json").read_text())["tolerance"] == 0.02
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    adapter = AutoPeftModelForCausalLM.from_pretrained(lora_run, dtype=torch.float32)
    base = AutoModelForCausalLM.from_pretrained(adapter.peft_config["default"].base_model_name_or_path)
    assert torch.allclose(logits(merged), logits(adapter), atol=1e-4)
    assert not torch.allclose(logits(merged), logits(base), atol=0.1)
    saved = json.loads((lora_run / "generation_config.json").read_text())
    assert merged.generation_config.eos_token_id == saved["eos_token_id"]
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template


def test_the_numbers_of_the_result_can_be_chosen(lora_run, command, tmp_path):
    result = command("merge", lora_run, "--output", tmp_path / "merged", "--dtype", "bf16", "--json")
    record = json.loads(result.output)
    assert (record["dtype"], record["tolerance"]) == ("bfloat16", 0.05)  # where every layer rounds to eight bits
    result = command("merge", lora_run, "--output", tmp_path / "other", "--dtype", "bf16", "--tolerance", "1e-9")
    assert "Keep the adapter beside its base, or allow more with --tolerance." in str(result.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]


def test_a_full_fine_tune_has_nothing_to_merge(full_run, command, tmp_path):
    result = command("merge", full_run, "--output", tmp_path / "merged")
    assert isinstance(result.exception, ModelError)
    assert "there is nothing to merge: 'full' trains the weights themselves" in str(result.exception)


def test_what_does_not_go_together_is_said_before_weights_are_loaded(lora_run, command, tmp_path, monkeypatch):
    import transformers

    monkeypatch.delattr(transformers.AutoModelForCausalLM, "from_pretrained")
    result = command("merge", lora_run, "--output", tmp_path / "merged", "--in-place", "--dtype", "bf16")
    assert "the base is fp32, not quantized: leave out --in-place." in str(result.exception)
    assert "leave out --dtype" in str(result.exception)
    result = command("merge", lora_run, "--output", tmp_path / "merged", "--in-place", "--base", "original")
    assert "leave out --base original" in str(result.exception)
    result = command("merge", lora_run, "--output", tmp_path / "merged", "--base", "original")
    assert "the base is fp32, not quantized: leave out --base original." in str(result.exception)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    result = command("merge", lora_run, "--output", tmp_path / "taken")
    assert isinstance(result.exception, RunError)
    assert "is not an empty folder" in str(result.exception)
    result = command("merge", tmp_path, "--output", tmp_path / "merged")
    assert "is not a folder of a run: it has no run.json." in str(result.exception)


def test_a_wrong_merge_is_found_out_and_nothing_is_left_behind(tmp_path, command):
    (tmp_path / "mine.py").write_text(PLUGIN)
    run = train_run(tmp_path, "forgetful", plugins=["./mine.py"], adapter="forgetful", quantization="fp32")
    result = command("merge", run, "--output", tmp_path / "merged")
    assert "the merged model does not say what the adapter says" in str(result.exception)
    assert not list(tmp_path.glob("*merged*"))
    assert not list(tmp_path.glob(".merged*"))


def test_a_trained_prompt_is_no_weight(tmp_path, command):
    (tmp_path / "mine.py").write_text(PLUGIN)
    run = train_run(tmp_path, "prompt", plugins=["./mine.py"], adapter="forgetful", quantization="fp32")
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("type: forgetful", "type: prompt"))
    result = command("merge", run, "--output", tmp_path / "merged")
    assert "'prompt' trains a prompt, which no weight can stand for." in str(result.exception)


def test_an_adapter_that_says_it_cannot_be_merged_is_refused_before_weights_are_loaded(tmp_path, command, monkeypatch):
    (tmp_path / "mine.py").write_text(PLUGIN)
    run = train_run(tmp_path, "beside", plugins=["./mine.py"], adapter="beside", quantization="fp32")
    monkeypatch.setattr("sftplug.model.merging.load_base", None)  # nothing is loaded
    result = command("merge", run, "--output", tmp_path / "merged")
    said = "'beside' says that what it trains cannot be merged. Load it with PEFT beside the base."
    assert said in str(result.exception)
    again = command("train", tmp_path / "beside.yaml", "--output", run)
    assert said in str(again.exception)  # nor is it offered as a way to train on


def test_what_peft_is_known_not_to_merge_is_refused_before_weights_are_loaded(recipe_file):
    from sftplug.recipe import load_recipe
    from sftplug_peft.facts import facts

    recipe = load_recipe(str(recipe_file(adapter="lily"))).recipe
    sentences = list(recipe.adapter.check_merge(recipe.quantization, in_place=False))
    if facts()["types"]:  # measured with the PEFT that is installed
        assert sentences == [
            f"peft {facts()['versions']['peft']}: lily cannot be merged: "
            "NotImplementedError: This method is not supported for Lily."
        ]


def test_rows_that_are_gone_can_be_replaced(qlora_run, command, tmp_path):
    run = tmp_path / "moved"
    shutil.copytree(qlora_run, run)
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("rows.jsonl", "gone.jsonl"))
    result = command("merge", run, "--output", tmp_path / "merged")
    expected = (
        "Rows to compare the merged model on can be given with --data FILE --format NAME, from Python with `data`"
    )
    assert expected in str(result.exception)
    write_rows(tmp_path / "others.jsonl", rows(4, seed=9))
    result = command(
        "merge",
        run,
        "--output",
        tmp_path / "merged",
        "--data",
        tmp_path / "others.jsonl",
        "--format",
        "messages",
        "--json",
    )
    assert result.exit_code == 0, result.exception
    assert json.loads(result.output)["compared_on"] == "given rows"
    assert json.loads(result.output)["difference"]["rows"] == 4


def test_a_backend_that_cannot_give_its_weights_back_is_refused():
    from sftplug_quantization import NF4

    class Quantizer:
        def dequantize(self, model):
            raise NotImplementedError("quanto has no implementation of `dequantize`")

    class Model:
        hf_quantizer = Quantizer()

    with pytest.raises(ModelError, match="nf4 weights cannot be made floats again: quanto has no implementation"):
        NF4().dequantize(Model())
