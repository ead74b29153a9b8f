"""What a recipe names is trained, on every family: a target, a pattern, an option has an effect or is refused."""

import copy

import pytest
import torch
from twins import FAMILIES, make_model

from sftplug import structure_of
from sftplug.libraries.logging import quiet_libraries
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
