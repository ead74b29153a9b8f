"""What a recipe names is trained, on every family: a target, a pattern, an option has an effect or is refused."""

import copy
import json

import pytest
import torch
from twins import FAMILIES, make_model

from sftplug import count_parameters, structure_of
from sftplug.libraries.logging import quiet_libraries
from sftplug.model.reach import kinds_of
from sftplug_adapters import Lora

STATES = {"mamba2"}
"""Families without attention: their mixer reads most of its layers as weights."""


@pytest.fixture(autouse=True)
def _quiet():
    quiet_libraries()


def problems(family, **options):
    return list(Lora(**{"r": 4, **options}).check_model(make_model(family)))


def adapted(family, **options):
    """Return PEFT's model, or None where the options are refused."""
    from peft import get_peft_model

    lora, model = Lora(**{"r": 4, **options}), make_model(family)
    if list(lora.check_model(copy.deepcopy(model))):
        return None
    lora.prepare_model(model)
    kinds_of(model)
    torch.manual_seed(1)
    return get_peft_model(model, lora.peft_config())


def trained(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def layers(model):
    """Return the names of what is adapted, as they are in the base."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    found = set()
    for name, module in model.get_base_model().named_modules():
        if isinstance(module, BaseTunerLayer):
            found.add(".".join(filter(None, [name.replace(".base_layer", ""), getattr(module, "parameter_name", "")])))
    return {name.removesuffix(".weight") for name in found}


def ends_of(family):
    model = make_model(family)
    names = [name for name, _ in model.named_modules() if name]
    names += [name.removesuffix(".weight") for name in structure_of(model).experts]
    return sorted({name.rpartition(".")[2] for name in names if not name.rpartition(".")[2].isdigit()})


@pytest.mark.parametrize("family", FAMILIES)
def test_the_default_trains_every_layer_and_expert_and_no_router(family):
    model = adapted(family)
    structure = structure_of(make_model(family))
    left_alone = structure.routers | structure.read_as_weights
    expected = {name for name in structure.linear if name not in left_alone and not structure.is_idle(name)}
    expected |= {name.removesuffix(".weight") for name in structure.experts if not structure.is_idle(name)}
    assert layers(model) == expected
    ids = torch.arange(10, 42).view(2, 16)
    model.train()(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss.backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("family", FAMILIES)
def test_a_target_is_trained_or_refused(family):
    reached = 0
    for end in ends_of(family):
        model = adapted(family, targets=[end])
        if model is not None:
            reached += 1
            assert all(end in name.split(".") for name in layers(model)), end
            assert layers(model), end
    assert reached >= (1 if family in STATES else 3)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_pattern_excludes_is_not_trained_or_the_pattern_is_refused(family):
    whole = layers(adapted(family))
    obeyed = 0
    for end in ends_of(family):
        model = adapted(family, exclude=[f"*.{end}"])
        if model is not None:
            obeyed += 1
            assert layers(model) == {name for name in whole if end not in name.split(".")}, end
    assert obeyed


@pytest.mark.parametrize("family", FAMILIES)
def test_an_option_changes_what_is_trained_or_is_refused(family):
    table = next(
        name.rpartition(".")[2] for name, m in make_model(family).named_modules() if "Embedding" in repr(m)[:24]
    )
    plain = {"layers": adapted(family), "table": adapted(family, targets=[table])}
    for option in (
        {"bias": "all"},
        {"bias": "lora_only"},
        {"dora": True},
        {"init": "gaussian"},
        {"init": "pissa"},
        {"init": "olora"},
        {"init": "orthogonal"},
        {"init": "orthogonal", "r": 3},
        {"r": 6},
    ):
        for what, targets in (("layers", "all-linear"), ("table", [table])):
            model = adapted(family, targets=targets, **option)
            if model is not None:
                before, after = trained(plain[what]), trained(model)
                same = before.keys() == after.keys() and all(
                    before[name].shape == after[name].shape and torch.equal(before[name], after[name])
                    for name in before
                )
                assert not same, (what, option)


@pytest.mark.parametrize(
    ("family", "options", "expected"),
    [
        ("llama", {"exclude": ["*norm*"]}, "`exclude: *norm*` matches nothing that could be adapted. Take it out."),
        ("llama", {"exclude": ["q_proj"]}, "`exclude: q_proj` matches no module of the model."),
        ("llama", {"targets": ["q_proj"], "exclude": ["*.v_proj"]}, "leaves out nothing that `targets` names"),
        ("llama", {"bias": "all"}, "`bias: all` has no effect: the model has no biases. Leave it out."),
        ("gemma3", {"bias": "lora_only"}, "has no effect: no layer that is adapted has a bias. Leave it out."),
        ("gemma3", {"bias": "all"}, "which rows of text do not run"),
        ("llama", {"init": "orthogonal", "r": 3}, "Set `r: 4`"),
        ("llama", {"targets": ["embed_tokens"], "dropout": 0.1}, "`dropout: 0.1` has no effect on embeddings"),
        ("llama", {"modules_to_save": ["act_fn"]}, "has no weights that could be trained. Leave it out."),
        (
            "llama",
            {"modules_to_save": ["embed_tokens"], "exclude": ["*.embed_tokens"]},
            "`exclude` leaves out all that `modules_to_save: embed_tokens` names",
        ),
    ],
)
def test_what_has_no_effect_is_refused_with_a_way_out(family, options, expected):
    assert expected in problems(family, **options)[0]


def test_a_tower_that_text_does_not_run_may_be_excluded_by_name():
    targets = ["q_proj", "v_proj"]
    assert layers(adapted("gemma3", targets=targets, exclude=["*vision_tower*"])) == layers(
        adapted("gemma3", targets=targets)
    )


def test_what_is_excluded_takes_along_what_is_in_it():
    assert {name.rpartition(".")[2] for name in layers(adapted("llama", exclude=["*.self_attn"]))} == {
        "gate_proj",
        "up_proj",
        "down_proj",
    }


def test_a_module_that_is_trained_whole_is_no_other_whose_name_ends_alike():
    """PEFT compares ends of names: `norm` alone would train every `input_layernorm` too."""
    model = adapted("llama", modules_to_save=["norm"])
    whole = [name for name in trained(model) if "modules_to_save" in name]
    assert whole == ["base_model.model.model.norm.modules_to_save.default.weight"]


# --- what is told of it -----------------------------------------------------------------------------------------------


def parts(family, **options):
    """Return what is told of a tiny model with an adapter, each part as (kind, in training, modules)."""
    size = count_parameters(adapted(family, **options))
    assert sum(part.parameters for part in size.parts) == size.base
    return {(part.kind, part.done, part.modules) for part in size.parts}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_weight_is_of_one_part_and_what_is_adapted_is_told(family):
    kinds = {kind for kind, _, _ in parts(family)}
    model = make_model(family)
    structure = structure_of(model)
    assert ("router" in kinds) == bool(structure.routers)
    assert ("experts" in kinds) == bool(structure.experts)
    assert ("vision" in kinds) == bool(structure.idle)
    assert "other" not in kinds
    told = parts(family)
    assert all(
        done == "frozen" for kind, done, _ in told if kind in ("router", "embeddings", "head", "norms", "vision")
    )
    assert any(done == "adapted, rank 4" for kind, done, _ in told if kind in ("attention", "state space"))


def test_the_parts_of_a_mixture_are_counted():
    assert parts("qwen2_moe", targets=["q_proj", "experts", "gate"], modules_to_save=["lm_head"]) == {
        ("attention", "adapted, rank 4", 2),
        ("attention", "frozen", 6),
        ("experts", "adapted, rank 4", 4),
        ("experts", "frozen", 6),  # the three layers of the shared expert
        ("router", "adapted, rank 4", 2),
        ("router", "frozen", 2),  # the gate of the shared expert
        ("embeddings", "frozen", 1),
        ("head", "trained", 1),
        ("norms", "frozen", 5),
    }


def test_a_table_of_parts_is_shown_by_check_plan_and_train(recipe_file, twin, command, tmp_path):
    file = recipe_file(model=str(twin("qwen3_moe")), adapter="qlora", quantization=None)
    row = ["experts", "4", "adapted, rank 16", "bfloat16"]
    for name in ("check", "plan", "train"):
        result = command(name, file)
        assert result.exit_code == 0, result.exception
        (line,) = (line for line in result.output.splitlines() if line.strip().startswith("experts "))
        assert [word.strip() for word in line.split("   ") if word.strip()][:4] == row
        (line,) = (line for line in result.output.splitlines() if line.strip().startswith("attention "))
        assert "nf4" in line
    size = json.loads((tmp_path / "out" / "result.json").read_text())["size"]
    assert {"kind": "router", "done": "frozen", "held_in": "bfloat16", "modules": 2, "parameters": 512} in size["parts"]
    plan = json.loads(command("plan", file, "--json").stdout)
    assert plan["size"]["parts"] == size["parts"]
