"""The files of a model's weights: all there, whole, in the model's own folder, and every weight of them used."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig
from twins import FAMILIES

from sftplug import ModelError
from sftplug.model.architectures import auto_class
from sftplug.model.loading import load_base
from sftplug.model.weight_files import check_weights, fault_of, foresee_weights, refuse_other_weights
from sftplug.recipe import load_recipe


@pytest.fixture
def folder(twin, tmp_path):
    """A copy of a tiny model, to be damaged."""
    return shutil.copytree(twin("llama"), tmp_path / "model")


@pytest.fixture
def sharded(folder):
    """The same in two files, with an index."""
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    parts = {"one.safetensors": names[:3], "two.safetensors": names[3:]}
    for file, held in parts.items():
        save_file({name: weights[name] for name in held}, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors").unlink()
    place = {name: file for file, held in parts.items() for name in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": place}))
    return folder


def rename_part(folder, new):
    index = folder / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("one.safetensors", new))


def refusals(command, recipe_file, folder):
    """Return what `check` and `train` say: the same, before anything is trained."""
    file = recipe_file(model=str(folder))
    texts = [str(command(name, file).exception) for name in ("check", "train")]
    assert texts[0].splitlines()[0] == texts[1].splitlines()[0]
    return texts[0]


def test_whole_files_are_taken_sharded_ones_too(sharded, recipe_file, command):
    check_weights(sharded)
    assert command("check", recipe_file(model=str(sharded))).exit_code == 0
    assert command("train", recipe_file(model=str(sharded))).exit_code == 0


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        (
            "pytorch_model-1.bin",
            "names 'pytorch_model-1.bin', which is not a safetensors file. Only safetensors are loaded",
        ),
        ("../elsewhere.safetensors", "names '../elsewhere.safetensors', which lies outside of the folder of the model"),
        ("/etc/weights.safetensors", "which lies outside of the folder"),
        ("three.safetensors", "names 'three.safetensors', which is not in the folder: get the model once more."),
    ],
)
def test_an_index_names_files_of_its_own_folder_and_nothing_else(sharded, new, expected, recipe_file, command):
    rename_part(sharded, new)
    assert expected in refusals(command, recipe_file, sharded)


def test_a_damaged_index_is_named(sharded):
    for text in ("{", "[]", '{"weight_map": 3}', '{"weight_map": {"a": 1}}'):
        (sharded / "model.safetensors.index.json").write_text(text)
        with pytest.raises(ModelError, match=r"model\.safetensors\.index\.json is damaged"):
            check_weights(sharded)


@pytest.mark.parametrize("cut", [0, 4, 100, -1])
def test_a_truncated_file_is_named(folder, cut, recipe_file, command):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:cut])
    assert f"{file} is damaged: it has " in refusals(command, recipe_file, folder)


def test_a_header_that_is_none_is_a_fault(tmp_path):
    file = tmp_path / "x.safetensors"
    for header in (b"nothing", b"[]", b'{"a": 1}', b"[" * 100_000):
        file.write_bytes(len(header).to_bytes(8, "little") + header)
        assert "its header cannot be read" in fault_of(file)
    file.write_bytes((2**63).to_bytes(8, "little"))
    assert "ends within its header" in fault_of(file)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_damaged_file_beside_the_weights_is_named(folder, name, recipe_file, command):
    (folder / name).write_text((folder / name).read_text()[:-20])
    assert f"{folder / name} is damaged, and cannot be read as JSON" in str(
        command("check", recipe_file(model=str(folder))).exception
    )


def test_a_model_without_weights_is_refused(folder, recipe_file, command):
    (folder / "model.safetensors").unlink()
    assert "has a configuration and no weights" in refusals(command, recipe_file, folder)


def rewritten(folder, change):
    weights = load_file(folder / "model.safetensors")
    save_file(change(weights), folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda w: {k: v for k, v in w.items() if k != "lm_head.weight"}, "1 are missing (lm_head.weight)"),
        (
            lambda w: {k.replace("layers.1.mlp.up_proj", "layers.1.mlp.upp_proj"): v for k, v in w.items()},
            "(model.layers.1.mlp.up_proj.weight); 1 are of no use to this model (model.layers.1.mlp.upp_proj.weight)",
        ),
        (
            lambda w: {k: (v[:-1].contiguous() if k == "model.norm.weight" else v) for k, v in w.items()},
            "1 have another shape (model.norm.weight)",
        ),
    ],
)
def test_weights_that_are_not_those_of_the_model_stop_check_and_run_by_name(
    folder, change, expected, recipe_file, command
):
    rewritten(folder, change)
    assert expected in refusals(command, recipe_file, folder)


def without_weights(folder):
    """Return the model of a folder as it is before weights are loaded."""
    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        return auto_class(config).from_config(config)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_check_knows_the_weights_of_each_family_as_they_are_saved(family, twin, tmp_path):
    """Saved experts stand one by one, and in the model together; other families rename what they hold, or tie it."""
    folder = shutil.copytree(twin(family), tmp_path / "model")
    foresee_weights(without_weights(folder), folder)
    weights = load_file(folder / "model.safetensors")
    experts = [name for name in sorted(weights) if ".experts." in name]
    for name in {*experts[-1:], sorted(weights)[-1]}:
        for changed in ({}, {name: torch.zeros(3, 5)}):
            left = {other: weights[other] for other in weights if other != name}
            save_file({**left, **changed}, folder / "model.safetensors", metadata={"format": "pt"})
            with pytest.raises(ModelError, match=r"missing|another shape|automatic conversion") as caught:
                foresee_weights(without_weights(folder), folder)
            # What transformers turns round first (Qwen3-VL-MoE's experts) it refuses itself, and calls by no name.
            told = str(caught.value)
            assert ".".join(name.split(".")[:3]) in told or "automatic conversion" in told


def test_experts_that_cannot_be_put_together_are_named(twin, tmp_path, recipe_file, command):
    folder = shutil.copytree(twin("mixtral"), tmp_path / "model")
    name = "model.layers.0.block_sparse_moe.experts.2.w1.weight"
    rewritten(folder, lambda w: {k: v for k, v in w.items() if k != name})
    assert f"Of its experts 1 are missing ({name})." in refusals(command, recipe_file, folder)
    with pytest.raises(ModelError, match=f"Of its experts 1 are missing .{name}"):
        load_base(load_recipe(str(recipe_file(model=str(folder)))).recipe)


def test_what_is_known_to_be_apart_is_no_fault(twin, recipe_file, command):
    assert command("train", recipe_file(model=str(twin("llama_tied")))).exit_code == 0
    none = {"missing_keys": set(), "mismatched_keys": set(), "error_msgs": []}
    left = {
        "model.vision_tower.layer.weight",
        "multi_modal_projector.w",
        "model.layers.0.self_attn.rotary_emb.inv_freq",
    }
    refuse_other_weights("a model for text", {**none, "unexpected_keys": left})
    with pytest.raises(ModelError, match="value_head"):
        refuse_other_weights("another", {**none, "unexpected_keys": {*left, "value_head.weight"}})


def test_an_adapter_of_another_base_is_refused_until_it_is_said(lora_run, tmp_path, command):
    run = shutil.copytree(lora_run, tmp_path / "run")
    config = run / "adapter_config.json"
    written = json.loads(config.read_text())
    config.write_text(json.dumps({**written, "base_model_name_or_path": "them/another"}))
    text = str(command("merge", run, "--output", tmp_path / "merged").exception)
    assert "names them/another as the base of the adapter" in text
    base = text.rpartition(" to '")[2].rpartition("'")[0]
    config.write_text(json.dumps({**written, "base_model_name_or_path": base}))
    assert command("merge", run, "--output", tmp_path / "merged").exit_code == 0


def test_an_adapter_that_is_pickled_or_damaged_is_refused(lora_run, tmp_path, command):
    run = shutil.copytree(lora_run, tmp_path / "run")
    weights = run / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    assert f"{weights} is damaged" in str(command("merge", run, "--output", tmp_path / "merged").exception)
    weights.rename(run / "adapter_model.bin")
    text = str(command("eval", run).exception)
    assert "its weights are pickled, which can run code" in text


@pytest.mark.parametrize("attention", ["evil/kernel", "evil/kernel@main:run", "paged|evil/kernel"])
def test_an_attention_on_the_hub_is_refused_by_name(attention, recipe_file, folder, command):
    from sftplug import RecipeError

    text = str(command("explain", recipe_file(), f"model.attn_implementation={attention}").exception)
    assert f"{attention!r} names code on the Hub, which is not run. Take `sdpa`" in text
    assert isinstance(command("check", recipe_file(), f"model.attn_implementation={attention}").exception, RecipeError)
    for key in ("attn_implementation", "_attn_implementation"):
        written = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**written, key: attention}))
        file = recipe_file(model=str(folder))
        text = str(command("check", file).exception)
        assert f"the configuration of {folder} names the attention {attention!r}: code on the Hub" in text
        assert "`model.attn_implementation: sdpa`" in text
        assert command("check", file, "model.attn_implementation=sdpa").exit_code == 0
        (folder / "config.json").write_text(json.dumps(written))
