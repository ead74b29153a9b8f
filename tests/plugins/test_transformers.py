"""Every quantization method of the installed transformers."""

import inspect
import json
import sys

import pytest

from sftplug.errors import MissingLibraryError, ModelError, RecipeError
from sftplug.plugin.components import Quantization
from sftplug.plugin.manager import load_plugins
from sftplug.plugin.registry import build_registry
from sftplug.recipe import load_recipe


@pytest.fixture(scope="module")
def offers():
    registry = build_registry(load_plugins())
    return {name: offer for name, offer in registry.offers[Quantization].items() if offer.library == "transformers"}


def problems(file, *overrides):
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(file), overrides)
    return [str(problem) for problem in caught.value.problems]


def test_all_methods_of_the_installed_library_are_offered(offers):
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AUTO_QUANTIZER_MAPPING

    assert len(AUTO_QUANTIZER_MAPPING) >= 20
    assert offers.keys() == AUTO_QUANTIZER_MAPPING.keys() & AUTO_QUANTIZATION_CONFIG_MAPPING.keys()


def test_each_method_has_exactly_the_options_of_its_configuration_class(offers):
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AUTO_QUANTIZER_MAPPING

    set_by_name = {"self", "kwargs", "quant_method", "load_in_4bit", "load_in_8bit"}
    for method, config in AUTO_QUANTIZATION_CONFIG_MAPPING.items():
        component = offers[method].component
        known = {field.alias or name for name, field in component.model_fields.items()} - {"type", "compute_dtype"}
        assert known == inspect.signature(config.__init__).parameters.keys() - set_by_name, method
        assert component.config() is config
        assert component.calibrated == AUTO_QUANTIZER_MAPPING[method].requires_calibration, method


def test_types_and_words_are_the_library_s(offers):
    schema = offers["hqq"].component.model_json_schema()
    assert schema["properties"]["nbits"]["type"] == "integer"
    assert schema["properties"]["nbits"]["default"] == 4
    assert schema["properties"]["nbits"]["description"].startswith("Number of bits. Supported values are (8, 4")
    (choice, null) = schema["properties"]["compute_dtype"]["anyOf"]
    assert (choice["enum"], null["type"]) == (["bfloat16", "float16", "float32"], "null")
    assert offers["gptq"].component.model_json_schema()["required"] == ["bits"]


def test_wrong_options_are_refused_with_the_nearest_name(recipe_file):
    quantization = {"type": "bitsandbytes_4bit", "bnb_4bit_quant_typ": "nf4"}
    (text,) = problems(recipe_file(adapter="lora", quantization=quantization))
    assert "unknown key. Did you mean 'bnb_4bit_quant_type'?" in text
    (text,) = problems(recipe_file(adapter="lora", quantization={"type": "hqq", "nbits": "four"}))
    assert text.endswith("must be a whole number, not 'four'.")
    (text,) = problems(recipe_file(adapter="lora", quantization={"type": "gptq", "bits": "4"}))
    assert text.startswith("quantization.bits (recipe.yaml")


@pytest.mark.parametrize(
    ("options", "bits"),
    [
        ({"type": "quanto", "weights": "int2"}, 2),
        ({"type": "hqq", "nbits": 3}, 3),
        ({"type": "gptq", "bits": 4}, 4),
        ({"type": "torchao", "quant_type": {"Int4WeightOnlyConfig": {"group_size": 32}}}, 4),
        ({"type": "bitsandbytes_8bit"}, 8),
        ({"type": "bitsandbytes_4bit"}, 4),
        ({"type": "nvfp4"}, 4),
        ({"type": "fp8"}, 8),
    ],
    ids=str,
)
def test_bits_come_from_options_defaults_and_names(offers, options, bits):
    component = offers[options["type"]].component.model_validate(options)
    assert component.bits == bits
    assert component.bytes_per_parameter == bits / 8
    assert not component.trainable


def test_what_can_never_be_trained_on_is_refused_before_anything_is_loaded(recipe_file):
    from importlib.metadata import version

    said = f"transformers {version('transformers')}: "
    (text,) = problems(recipe_file(adapter="lora", quantization="higgs"))
    assert text.endswith(f"{said}nothing can be trained on higgs weights, not even an adapter.")
    (text,) = problems(recipe_file(adapter="lora", quantization="awq"))
    assert f"{said}awq reads checkpoints that were quantized with it before, and a model that is built" in text
    assert "'full' trains the base weights" in problems(recipe_file(quantization="quanto"))[0]


def test_what_was_run_and_failed_is_refused_with_the_reason(recipe_file, monkeypatch):
    import sftplug_transformers.facts as facts

    file = recipe_file(adapter="lora", quantization="hqq")
    monkeypatch.setattr(facts, "transformers_version", lambda: "5.23.0")
    facts.facts.cache_clear()
    (text,) = problems(file)
    assert "transformers 5.23.0: hqq does not load: QuantizationMethod.HQQ is not available yet" in text
    monkeypatch.setattr(facts, "transformers_version", lambda: "5.99.0")
    facts.facts.cache_clear()
    assert load_recipe(str(file)).recipe.quantization.type == "hqq"
    facts.facts.cache_clear()


def test_a_folder_says_how_it_is_quantized(recipe_file, tmp_path):
    (tmp_path / "model").mkdir()
    config = tmp_path / "model" / "config.json"
    file = recipe_file(adapter="lora", quantization="awq", model={"name_or_path": str(tmp_path / "model")})
    config.write_text(json.dumps({"quantization_config": {"quant_method": "gptq"}}))
    assert f"config.json in {tmp_path / 'model'} says gptq" in problems(file)[0]
    config.write_text(json.dumps({"quantization_config": {"quant_method": "awq"}}))
    quantization = load_recipe(str(file)).recipe.quantization
    assert quantization.load_kwargs().keys() == {"dtype"}  # the checkpoint brings its configuration


def test_a_missing_library_is_named_when_the_component_is_used(recipe_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao", None)
    options = {"torchao": "Int8WeightOnlyConfig"}
    quantization = load_recipe(str(recipe_file(adapter="lora", quantization=options))).recipe.quantization
    with pytest.raises(MissingLibraryError, match="quantization torchao needs the library torchao"):
        quantization.load_kwargs()


def test_what_transformers_refuses_is_a_model_error(recipe_file):
    quantization = {"type": "quanto", "weights": "int3"}
    quanto = load_recipe(str(recipe_file(adapter="lora", quantization=quantization))).recipe.quantization
    with pytest.raises(ModelError, match="quantization quanto: Only support weights in"):
        quanto.load_kwargs()


def test_bitsandbytes_by_its_library_name_trains(recipe_file, run):
    quantization = {"type": "bitsandbytes_4bit", "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "bfloat16"}
    result = run(recipe_file(adapter="lora", quantization=quantization))
    losses = [entry["loss"] for entry in result.log if "loss" in entry]
    assert losses[-1] < losses[0]


def test_a_run_s_record_names_options_as_recipes_do(recipe_file, offers):
    """`bits` of gptq is the field `bits_`, because backends have `bits`: what is written must be read again."""
    from sftplug.run.record import recorded

    gptq = offers["gptq"].component
    recipe = load_recipe(str(recipe_file())).recipe.model_copy(update={"quantization": gptq(bits=4)})
    written = recorded(recipe)["quantization"]
    assert written["bits"] == 4
    assert gptq.model_validate(written) == gptq(bits=4)
