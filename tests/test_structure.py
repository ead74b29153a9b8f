"""What a model is made of, by its modules: experts, routers, layers read as weights, parts that text does not run."""

import copy
import re
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM
from twins import config_of, make_model

from sftplug import TrainingError, structure_of
from sftplug.libraries.logging import quiet_libraries
from sftplug.training.callbacks import GradientCheck
from sftplug_adapters import Freeze, Full, Lora

SIZES = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 128}


def on_meta(family, **options):
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **options))


def kinds(names):
    return {re.sub(r"\.\d+", "", name) for name in names}


@pytest.mark.parametrize(
    ("family", "routers"),
    [
        ("qwen3_moe", {"model.layers.mlp.gate"}),
        ("gpt_oss", {"model.layers.mlp.router"}),
        ("qwen2_moe", {"model.layers.mlp.gate", "model.layers.mlp.shared_expert_gate"}),
    ],
)
def test_experts_and_routers_are_found_whatever_they_are_called(family, routers):
    with torch.device("meta"):
        structure = structure_of(AutoModelForCausalLM.from_config(config_of(family)))
    assert kinds(structure.experts) == {"model.layers.mlp.experts.gate_up_proj", "model.layers.mlp.experts.down_proj"}
    assert kinds(structure.routers) == routers


def test_experts_of_another_build_are_found_too():
    jetmoe = structure_of(on_meta("jetmoe", num_local_experts=4, num_experts_per_tok=2, kv_channels=16, **SIZES))
    assert kinds(jetmoe.routers) == {
        "model.layers.mlp.router.layer",
        "model.layers.self_attention.experts.router.layer",
    }
    assert "model.layers.mlp.input_linear.weight" in kinds(jetmoe.experts)


def test_a_shared_expert_that_is_as_wide_as_there_are_experts_is_no_router():
    structure = structure_of(on_meta("qwen2_moe", num_experts=32, shared_expert_intermediate_size=32, **SIZES))
    assert kinds(structure.routers) == {"model.layers.mlp.gate", "model.layers.mlp.shared_expert_gate"}


@pytest.mark.parametrize(
    ("family", "options", "read"),
    [
        ("mamba2", {"num_heads": 8, "head_dim": 16}, {"out_proj"}),
        ("falcon_mamba", {}, {"out_proj", "x_proj", "dt_proj"}),
        ("bamba", {"attn_layer_indices": [1], "mamba_n_heads": 8, "mamba_d_head": "auto"}, {"out_proj"}),
        ("llama", {}, set()),
        ("bloom", {}, set()),
    ],
)
def test_layers_that_kernels_read_as_weights_are_found(family, options, read):
    structure = structure_of(on_meta(family, **{**SIZES, **options}))
    names = {name.rpartition(".")[2] for name in structure.read_as_weights if name in structure.linear}
    assert names == read


IMAGES = {
    "gemma3": {"model.vision_tower", "model.multi_modal_projector"},
    "qwen2_5_vl": {"model.visual"},
    "qwen3_vl": {"model.visual"},
    "qwen3_vl_moe": {"model.visual"},
    "llava_next": {"model.vision_tower", "model.multi_modal_projector", "model.image_newline"},
    "llama4": {"vision_model", "multi_modal_projector"},
    "mllama": {"model.vision_model", "model.multi_modal_projector", "model.language_model.layers.1"},
}
"""Family of images and text -> what rows of text do not run; in `mllama` also a layer that looks at the image."""


def test_parts_that_rows_of_text_do_not_run_are_found():
    for family, idle in IMAGES.items():
        assert structure_of(make_model(family)).idle == idle
    assert structure_of(make_model("llama")).idle == frozenset()


@pytest.mark.parametrize("family", IMAGES)
@pytest.mark.parametrize("adapter", [Full(), Lora()], ids=["full", "lora"])
def test_what_rows_of_text_run_is_trained_and_nothing_else(family, adapter):
    from peft import get_peft_model

    quiet_libraries()
    model = make_model(family)
    assert list(adapter.check_model(copy.deepcopy(model))) == []
    adapter.prepare_model(model)
    config = adapter.peft_config()
    model = model if config is None else get_peft_model(model, config)
    ids = torch.arange(10, 42).view(2, 16)
    model.train()
    model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss.backward()
    parameters = dict(model.named_parameters())
    assert {name for name, p in parameters.items() if p.grad is not None} == trained(model)
    if config is None:
        idle = {name for name in parameters if any(name.startswith(part) for part in IMAGES[family])}
        assert trained(model) == parameters.keys() - idle


def trained(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_full_trains_the_language_model_and_nothing_else():
    model = make_model("gemma3")
    before = trained(model)
    Full().prepare_model(model)
    assert trained(model) == {name for name in before if name.startswith("model.language_model.")}


def test_patterns_of_freeze_that_match_a_tower_are_refused_with_patterns_that_work():
    model = make_model("gemma3")
    (text,) = Freeze(train=["*"]).check_model(model)
    assert (
        "model.multi_modal_projector, model.vision_tower. Name the others: `train: ['model.language_model.*']`" in text
    )
    other = Freeze(train=["model.language_model.*"])
    assert list(other.check_model(model)) == []
    full = make_model("gemma3")
    Full().prepare_model(full)
    other.prepare_model(model)
    assert trained(model) == trained(full)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"targets": ["patch_embedding"]},
            "is in model.vision_tower alone, which rows of text do not run. Leave it out.",
        ),
        ({"modules_to_save": ["multi_modal_projector"]}, "is in model.multi_modal_projector alone"),
    ],
)
def test_what_is_in_a_tower_alone_cannot_be_adapted(options, expected):
    (text,) = Lora(**options).check_model(make_model("gemma3"))
    assert expected in text


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"]])
def test_lora_leaves_towers_out(targets):
    lora = Lora(targets=targets)
    lora.prepare_model(make_model("gemma3"))
    assert all(name.startswith("model.language_model.") for name in lora.peft_config().target_modules)


def test_out_proj_of_mamba_is_left_out_or_refused_with_a_way_out():
    lora = Lora()
    lora.prepare_model(make_model("mamba2"))
    assert {name.rpartition(".")[2] for name in lora.peft_config().target_modules} == {"in_proj"}
    (text,) = Lora(targets=["in_proj", "out_proj"]).check_model(make_model("mamba2"))
    assert "Mamba2Mixer reads the weight of its out_proj without calling the layer" in text
    assert "Leave it out of `targets`." in text
    assert list(Lora(targets=["in_proj"]).check_model(make_model("mamba2"))) == []


@pytest.mark.parametrize("family", ["gemma3", "mamba2"])
@pytest.mark.parametrize("kind", ["peft_lora", "vera"])
def test_types_of_peft_leave_such_parts_out_or_say_how(family, kind, recipe_file, twin):
    from sftplug.model.loading import check_model
    from sftplug.recipe import load_recipe

    def problems(**options):
        return check_model(
            load_recipe(str(recipe_file(model=str(twin(family)), adapter={"type": kind, **options}))).recipe
        )

    (text,) = problems(target_modules="all-linear")
    name, value = re.search(r"`(\w+): '(.*?)'` leaves such", text).groups()
    assert problems(**{"target_modules": "all-linear", name: value}) == []
    if kind == "peft_lora":
        assert problems() == []  # chosen for it


def test_a_parameter_without_gradient_is_told_as_what_it_is():
    class Arguments:
        deepspeed_plugin = None

    model = make_model("gemma3")
    with pytest.raises(TrainingError, match="adapter `freeze`"):
        GradientCheck().on_pre_optimizer_step(Arguments(), None, None, model=model)
    model.peft_config = {}
    with pytest.raises(TrainingError, match="leave such modules out of the adapter"):
        GradientCheck().on_pre_optimizer_step(Arguments(), None, None, model=model)


def test_modules_that_sit_out_a_step_have_time_to_get_a_gradient():
    """With a module dropout of 0.5 a module has 20 steps; one that got nothing in any of them is not used."""

    class Arguments:
        deepspeed_plugin = None

    model = torch.nn.ModuleDict({name: torch.nn.Linear(1, 1, bias=False) for name in ("now", "then", "never")})
    model.peft_config = {"default": SimpleNamespace(module_dropout=0.5)}
    check = GradientCheck()
    for step in range(19):
        model["now" if step % 2 else "then"].weight.grad = torch.ones(1, 1)
        check.on_pre_optimizer_step(Arguments(), None, None, model=model)
        model.zero_grad()
    with pytest.raises(TrainingError, match="1 parameters are to be trained but get no gradient, such as never"):
        check.on_pre_optimizer_step(Arguments(), None, None, model=model)


@pytest.mark.parametrize(
    "case",
    [
        ("gemma3", "full", "vision_tower"),
        ("qwen2_5_vl", "full", "visual"),
        ("qwen3_vl", "lora", "visual"),
        ("llava_next", "qlora", "vision_tower"),
    ],
)
def test_a_model_of_images_and_text_trains_on_rows_of_text(case, recipe_file, twin, command, tmp_path):
    family, adapter, tower = case
    (twin(family) / "preprocessor_config.json").write_text("{}")
    file = recipe_file(model=str(twin(family)), adapter=adapter, quantization=None if adapter == "qlora" else "fp32")
    result = command("train", file)
    assert result.exit_code == 0, result.exception
    what = "not trained: " if adapter == "full" else "without adapter: "
    assert what in result.output
    assert tower in result.output
    folder = tmp_path / "out"
    if adapter != "full":
        assert command("merge", folder, "--output", tmp_path / "merged").exit_code == 0
        folder = tmp_path / "merged"
    assert (folder / "preprocessor_config.json").is_file()
    if adapter == "qlora":
        return  # its merged towers are what 4 bits have made of them
    before, after = (load_file(place / "model.safetensors") for place in (twin(family), folder))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not any(tower in name or "projector" in name for name in changed)


def test_the_card_loads_an_adapter_of_a_model_of_images_and_text(recipe_file, twin, command, tmp_path):
    file = recipe_file(model=str(twin("qwen3_vl")), adapter="lora")
    assert command("train", file).exit_code == 0
    text = (tmp_path / "out" / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1].replace('folder = "."', f'folder = "{tmp_path}/out"')
    found = {}
    exec(code.partition("messages = ")[0], found)
    assert type(found["model"].get_base_model()).__name__ == "Qwen3VLForConditionalGeneration"


def test_what_does_not_go_on_with_text_is_called_what_it_is(recipe_file, tmp_path, command):
    AutoConfig.for_model("udop").save_pretrained(tmp_path / "udop")
    AutoConfig.for_model("t5").save_pretrained(tmp_path / "t5")
    for folder, expected in (("udop", "udop is a model with an encoder"), ("t5", "t5 is a model with an encoder")):
        text = str(command("plan", recipe_file(model=str(tmp_path / folder)), "--rows", "9").exception)
        assert expected in text
        assert len(text) < 300
