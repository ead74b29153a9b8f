"""Every adapter type of the installed PEFT."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import TINY, rows, write_rows

from sftplug.errors import RecipeError, TrainingError
from sftplug.plugin.components import Adapter
from sftplug.plugin.manager import load_plugins
from sftplug.plugin.registry import build_registry
from sftplug.recipe import load_recipe

FACTS = Path(__file__).parents[2] / "plugins" / "sftplug_peft" / "facts.json"


@pytest.fixture(scope="module")
def offers():
    registry = build_registry(load_plugins())
    return {name: offer for name, offer in registry.offers[Adapter].items() if offer.library == "peft"}


def problems(file, *overrides):
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(file), overrides)
    return [str(problem) for problem in caught.value.problems]


def test_all_types_of_the_installed_library_are_offered(offers):
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    registered = {kind.value.lower(): config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    assert len(registered) >= 40
    assert {name.removeprefix("peft_") for name in offers} == registered.keys()
    assert [name for name in offers if name.startswith("peft_")] == ["peft_lora"]


def test_each_type_has_exactly_the_options_of_its_configuration_class(offers):
    import dataclasses

    from peft import PeftConfig
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    filled_in = {field.name for field in dataclasses.fields(PeftConfig)}
    for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items():
        name = kind.value.lower()
        component = (offers.get(name) or offers[f"peft_{name}"]).component
        known = {field.alias or name for name, field in component.model_fields.items()} - {"type"}
        assert known == {field.name for field in dataclasses.fields(config) if field.init} - filled_in
        assert component.config() is config


def test_types_defaults_and_words_are_the_library_s(offers):
    vera = offers["vera"].component
    assert vera.model_fields["r"].default == 256
    assert vera.model_fields["d_initial"].description == "Initial init value for d vector."
    assert vera.__doc__ == "This is the configuration class to store the configuration of a `VeraModel`."
    schema = vera.model_json_schema()
    assert schema["properties"]["r"] == {
        "default": 256,
        "description": "Vera attention dimension",
        "title": "R",
        "type": "integer",
    }
    road = offers["road"].component.model_json_schema()["properties"]["variant"]
    assert road["enum"] == ["road_1", "road_2", "road_4"]  # an enumeration of PEFT's
    assert schema["additionalProperties"] is False


def test_wrong_options_are_refused_with_the_nearest_name(recipe_file):
    adapter = {"type": "vera", "vera_dropuot": 0.1, "d_initial": "high", "target_modules": 3}
    found = problems(recipe_file(adapter=adapter))
    assert [text.partition(": ")[2].partition(" Known")[0] for text in found] == [
        "unknown key. Did you mean 'vera_dropout'?",
        "must be a number, not 'high'.",
        "must be list[str] or str or null, not 3.",
    ]
    assert problems(recipe_file(), "adapter=verra")[0].startswith(
        "adapter (command line): 'verra' is not installed. Did you mean 'vera'? Known: adalora,"
    )
    (text,) = problems(recipe_file(adapter={"type": "road", "variant": "road_3"}))
    assert "must be one of road_1, road_2, road_4, not 'road_3'. Did you mean" in text
    (text,) = problems(recipe_file(adapter={"type": "peft_lora", "eva_config": {"rhoo": 2.0}}))
    assert "adapter.eva_config.rhoo" in text
    assert "Did you mean 'rho'?" in text


def test_nested_options_become_the_library_s_own_classes(recipe_file):
    from peft import EvaConfig

    adapter = {
        "type": "peft_lora",
        "init_lora_weights": "eva",
        "eva_config": {"rho": 1.5},
        "target_modules": ["q_proj"],
    }
    config = load_recipe(str(recipe_file(adapter=adapter))).recipe.adapter.peft_config()
    assert config.eva_config == EvaConfig(rho=1.5)
    assert config.target_modules == {"q_proj"}
    again = {"type": "peft_lora", "init_lora_weights": "pissa_niter_16"}
    assert (
        load_recipe(str(recipe_file(adapter=again))).recipe.adapter.peft_config().init_lora_weights == "pissa_niter_16"
    )


def test_a_recipe_that_was_written_down_says_the_same(recipe_file):
    recipe = load_recipe(str(recipe_file(adapter={"type": "peft_lora", "r": 4}))).recipe
    again = load_recipe(str(recipe_file(adapter=recipe.adapter.model_dump(mode="json", by_alias=True)))).recipe
    assert again.adapter.peft_config() == recipe.adapter.peft_config()


NF4 = {"type": "nf4", "compute_dtype": "bfloat16"}
"""Nothing is left to the device, which would be asked what it does fast."""


def test_hopeless_combinations_are_refused_before_anything_is_loaded(recipe_file):
    from importlib.metadata import version

    if version("peft") != json.loads(FACTS.read_text())["versions"]["peft"]:
        pytest.skip("nothing was measured with this version of PEFT, so nothing is refused")
    code = f"""
import sys
from sftplug.recipe import load_recipe
try:
    load_recipe({str(recipe_file(adapter="loha", quantization=NF4))!r})
except Exception as error:
    print(error)
print([name for name in ("torch", "peft", "transformers") if name in sys.modules])
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "adapter (recipe.yaml" in said
    assert "peft 0.21.2: loha does not train on nf4: RuntimeError: mat1 and mat2 shapes cannot be multiplied" in said
    assert "It works on fp32, bf16, int8." in said
    assert said.endswith("[]\n")


def test_what_was_not_measured_is_not_refused(recipe_file, monkeypatch):
    import sftplug_peft.facts

    file = recipe_file(adapter="loha", quantization="nf4")
    monkeypatch.setattr(sftplug_peft.facts, "version", lambda _: "0.99.0")
    sftplug_peft.facts.facts.cache_clear()
    try:
        assert load_recipe(str(file)).recipe.adapter.type == "loha"
    finally:
        sftplug_peft.facts.facts.cache_clear()


def test_what_peft_refuses_is_said_before_weights_are_loaded(recipe_file):
    from sftplug.model.loading import check_model

    def said(**options):
        return check_model(load_recipe(str(recipe_file(adapter=options))).recipe)

    assert said(type="vera", target_modules=["q_porj"])[0].startswith(
        "PEFT refuses it: No layers types compatible with VeRA"
    )
    assert said(type="adalora") == [
        "PEFT refuses it: AdaLoRA does not work when `total_step` is None, supply a value > 0."
    ]
    assert said(type="vera") == []
    (lost,) = said(type="prompt_tuning", prompt_tuning_init="TEXT", **TEXT, tokenizer_name_or_path="./nowhere")
    assert lost.startswith("PEFT refuses it: ")
    assert "./nowhere" in lost
    refused = ["an adapter on the head 'lm_head' would be ignored by the fused loss. Take it out of `target_modules`."]
    for kind in ("loha", "peft_lora"):
        assert said(type=kind, target_modules=["q_proj", "lm_head"]) == refused
        assert said(type=kind, target_modules=["q_proj"]) == []


TEXT = {"prompt_tuning_init_text": "Say where things lie", "num_virtual_tokens": 4}


def test_what_peft_refuses_is_said_once(recipe_file, command):
    file = recipe_file(adapter={"type": "prompt_tuning", "prompt_tuning_init": "TEXT", **TEXT})
    told = str(command("check", file).exception)
    assert told.count("PEFT refuses it: When prompt_tuning_init='TEXT', tokenizer_name_or_path can't be None.") == 1
    assert told.count("tokenizer_name_or_path") == 1


def test_linear_layers_are_adapted_where_peft_has_no_list_for_the_family(recipe_file):
    from sftplug.model.loading import skeleton

    recipe = load_recipe(str(recipe_file(adapter="vera"))).recipe
    model = skeleton(recipe)
    recipe.adapter.prepare_model(model)
    assert recipe.adapter.peft_config().target_modules is None  # PEFT has a list for Llama
    model.config.model_type = "tomorrows_family"
    recipe.adapter.prepare_model(model)
    assert recipe.adapter.peft_config().target_modules == "all-linear"
    norms = load_recipe(str(recipe_file(adapter="ln_tuning"))).recipe
    norms.adapter.prepare_model(model)
    assert norms.adapter.peft_config().target_modules is None  # it adapts norms: PEFT must be told which


def test_a_type_of_tomorrow_appears_by_upgrading(tmp_path):
    """A PEFT with one type more: its name, options and words are there without a line from us."""
    tuner = tmp_path / "peft" / "tuners" / "tomorrow"
    tuner.mkdir(parents=True)
    (tmp_path / "peft" / "__init__.py").write_text("raise ImportError('must not be imported to list its types')\n")
    (tmp_path / "peft" / "config.py").write_text("class PeftConfig:\n    task_type: str = None\n")
    (tuner / "__init__.py").write_text(
        "from .config import TomorrowConfig\n\n"
        "if True:\n    register_peft_method(\n        name='tomorrow', config_cls=TomorrowConfig\n    )\n"
    )
    (tuner / "config.py").write_text(
        "@dataclass\nclass TomorrowConfig(PeftConfig):\n    '''Adapts as nobody did yet.'''\n\n"
        "    rank: int = field(default=3, metadata={'help': 'How much of it.'})\n"
    )
    code = """
from sftplug.plugin.components import Adapter
from sftplug.plugin.manager import load_plugins
from sftplug.plugin.registry import build_registry
offers = build_registry(load_plugins()).offers[Adapter]
component = offers["tomorrow"].component
print([name for name, offer in offers.items() if offer.library], component(rank=4).rank, component.__doc__)
print(component.model_fields["rank"].description, list(component.model_fields))
"""
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{code}"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == [
        "['tomorrow'] 4 Adapts as nobody did yet.",
        "How much of it. ['type', 'rank']",
    ]


CASES = {
    "ia3": {},
    "vera": {"r": 32},
    "oft": {"target_modules": "all-linear", "oft_block_size": 16},
    "loha": {"r": 4},
    "prompt_tuning": {"num_virtual_tokens": 4},
}


@pytest.mark.parametrize("name", CASES)
def test_types_train_from_the_command_line_and_reload(name, tmp_path, monkeypatch):
    import torch
    from peft import AutoPeftModelForCausalLM, PeftConfig

    from sftplug import cli

    write_rows(tmp_path / "rows.jsonl", rows(8))
    recipe = {
        "model": {"build": TINY},
        "data": {"train": {"path": "rows.jsonl", "format": "messages"}},
        "chat_template": "chatml",
        "quantization": "fp32",
        "adapter": {"type": name, **CASES[name]},
        "train": {"max_steps": 8, "per_device_train_batch_size": 8, "learning_rate": 0.05, "logging_steps": 1},
        "output": str(tmp_path / "out"),
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    monkeypatch.setattr(sys, "argv", ["sftplug", "train", str(tmp_path / "recipe.yaml")])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    (metrics,) = (tmp_path / "out").rglob("metrics.jsonl")
    log = [json.loads(line) for line in metrics.read_text().splitlines()]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert losses[-1] < losses[0]
    assert PeftConfig.from_pretrained(tmp_path / "out").peft_type.value == name.upper()
    model = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    base = model.get_base_model() if name == "prompt_tuning" else None
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        adapted = model(input_ids=ids).logits[:, -20:]
        if base is not None:
            plain = base(input_ids=ids).logits
        else:
            with model.disable_adapter():
                plain = model(input_ids=ids).logits
    assert float((adapted - plain).abs().max()) > 1e-3


def test_prompt_tokens_before_the_row_do_not_shift_its_labels(recipe_file, prepared):
    """On CPUs only trained positions are scored; prompt tuning moves them by its tokens."""
    import torch

    from sftplug.model.loading import load_model
    from sftplug.training.train import make_trainer

    file = recipe_file(adapter={"type": "prompt_tuning", "num_virtual_tokens": 5}, train={"max_steps": 1})
    recipe = load_recipe(str(file)).recipe
    trainer = make_trainer(recipe, load_model(recipe), prepared(file))
    batch = next(iter(trainer.get_train_dataloader()))
    plain = {name: value for name, value in batch.items() if name in ("input_ids", "labels", "attention_mask")}
    with torch.no_grad():
        expected = trainer.model(**plain).loss  # transformers' own loss, PEFT shifts the labels
        assert torch.allclose(trainer.compute_loss(trainer.model, dict(batch)), expected, atol=1e-5)


def adalora(recipe_file, **options):
    adapter = {"type": "adalora", "init_r": 6, "target_r": 4, "tinit": 2, "deltaT": 2, "total_step": 12, **options}
    train = {"max_steps": 12, "per_device_train_batch_size": 4, "learning_rate": 0.05, "save_strategy": "no"}
    return recipe_file(adapter=adapter, train=train)


@pytest.mark.filterwarnings("ignore:The following rank_pattern keys:RuntimeWarning")  # PEFT's, over its own pattern
@pytest.mark.filterwarnings("ignore:Adapter 'default':UserWarning")  # likewise, over a module without a rank
@pytest.mark.parametrize("tfinal", [0, 3])
def test_adalora_shares_out_its_ranks_and_reloads_to_what_it_said(tfinal, recipe_file, run, monkeypatch, tmp_path):
    import torch
    from peft import AutoPeftModelForCausalLM

    from sftplug.training import train as training

    kept, ids = {}, torch.arange(5, 25)[None]
    plain_save = training.save

    def save(trainer, prepared, folder):
        plain_save(trainer, prepared, folder)
        with torch.no_grad():
            kept["logits"] = trainer.model.eval()(input_ids=ids).logits

    monkeypatch.setattr(training, "save", save)
    run(adalora(recipe_file, tfinal=tfinal))
    model = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    ranks = [len(scales) for name, scales in model.named_parameters() if "lora_E" in name]
    assert len(set(ranks)) > 1  # each module has a rank of its own
    assert sum(ranks) == 4 * len(ranks)  # and on average they have `target_r`
    with torch.no_grad():
        assert torch.allclose(model(input_ids=ids).logits, kept["logits"], atol=1e-5)


def test_adalora_is_refused_a_schedule_for_other_steps(recipe_file, run):
    with pytest.raises(TrainingError) as caught:
        run(adalora(recipe_file, total_step=30))
    assert "adapter 'adalora': `total_step` is 30, and the run takes 12 steps" in str(caught.value)
    assert str(caught.value).endswith("Set `adapter.total_step: 12`.")


def test_an_option_that_would_have_no_effect_is_refused(recipe_file):
    with pytest.raises(RecipeError, match=r"`orth_reg_weight` has no effect: PEFT adds it to the model's own loss"):
        load_recipe(str(adalora(recipe_file, orth_reg_weight=0.1)))
    load_recipe(str(adalora(recipe_file, orth_reg_weight=0.5)))  # PEFT's default, as the record of a run holds it


def test_adapters_whose_ranks_are_fixed_are_left_alone():
    from types import SimpleNamespace

    from sftplug.training.callbacks import allocating

    def tuner(**options):
        return SimpleNamespace(update_and_allocate=print, peft_config={"default": SimpleNamespace(**options)})

    assert allocating(SimpleNamespace(base_model=SimpleNamespace(peft_config={}))) is None
    assert allocating(SimpleNamespace(base_model=tuner(use_asa=False))) is None
    assert allocating(SimpleNamespace(base_model=tuner(use_asa=True))) is not None
    assert allocating(SimpleNamespace(base_model=tuner())) is not None


@pytest.mark.parametrize(
    "case",
    [
        (
            "llama",
            {"target_modules": ["q_proj", "v_porj"]},
            "`target_modules: v_porj` changes nothing on this model. Did you mean 'v_proj'? Take it out.",
        ),
        ("llama", {"target_modules": ["q_proj"], "exclude_modules": ["v_proj"]}, "`exclude_modules: v_proj` changes"),
        ("llama", {"target_modules": ["q_proj"], "exclude_modules": ".*v_proj"}, "`exclude_modules: .*v_proj` changes"),
        ("llama", {"target_modules": ["q_proj"], "modules_to_save": ["heads"]}, "`modules_to_save: heads` changes"),
        ("llama", {"target_modules": ["q_proj"], "layers_to_transform": [0, 7]}, "`layers_to_transform: 7` changes"),
        ("llama", {"target_modules": ["q_proj"], "rank_pattern": {"k_proj": 4}}, "`rank_pattern: k_proj` changes"),
        ("qwen3_moe", {"target_modules": ["q_proj", "gate_proj", "up_proj", "down_proj"]}, None),
        ("qwen3_moe", {"target_modules": ["q_proj"], "target_parameters": ["experts.down_proj"]}, None),
        ("llama", {"target_modules": ["q_proj"], "layers_to_transform": [0], "rank_pattern": {"q_proj": 4}}, None),
        ("llama", {"target_modules": "all-linear", "exclude_modules": ["v_proj"]}, None),
    ],
)
def test_names_that_change_nothing_are_refused(case, recipe_file, twin, command):
    family, options, expected = case
    result = command("check", recipe_file(model=str(twin(family)), adapter={"type": "peft_lora", **options}))
    assert result.exit_code == (1 if expected else 0), result.exception
    assert (expected or "") in str(result.exception or "")
