"""LoRA on mixtures of experts: what is adapted, what is left alone, and that it is what is saved and merged."""

import copy

import pytest
import torch
from twins import make_model

from sftplug.libraries.logging import quiet_libraries
from sftplug.model.architectures import auto_class
from sftplug_adapters import Lora


@pytest.fixture(autouse=True)
def _quiet():
    quiet_libraries()


SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
EXPERTS = {"experts.gate_up_proj", "experts.down_proj"}
DENSE = {"gate_proj.weight", "up_proj.weight", "down_proj.weight"}


def adapted(family, **options):
    """Return PEFT's model of a tiny model of `family`, and what is adapted in it, by the ends of the names."""
    from peft import get_peft_model

    lora = Lora(r=8, **options)
    model = make_model(family)
    assert list(lora.check_model(copy.deepcopy(model))) == []
    lora.prepare_model(model)
    config = lora.peft_config()
    parts = {".".join(name.split(".")[-2:]) for name in config.target_parameters or ()}
    modules = {name.rpartition(".")[2] for name in config.target_modules}
    return get_peft_model(model, config), modules, parts


def problems(family, **options):
    return list(Lora(r=8, **options).check_model(make_model(family)))


@pytest.mark.parametrize(
    ("family", "options", "modules", "parts"),
    [
        ("qwen3_moe", {}, set(SEVEN[:4]), EXPERTS),
        ("qwen3_moe", {"targets": SEVEN}, set(SEVEN[:4]), EXPERTS),
        ("gpt_oss", {}, set(SEVEN[:4]), EXPERTS),
        ("mixtral", {"targets": ["q_proj", "w1", "w2", "w3"]}, {"q_proj"}, EXPERTS),
        ("qwen3_moe_dense", {"targets": SEVEN}, set(SEVEN[:4]), EXPERTS | DENSE),
        ("qwen2_moe", {}, set(SEVEN), EXPERTS),
        ("deepseek_v3", {}, {"q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"}, EXPERTS | DENSE),
        ("granitemoe", {}, set(SEVEN[:4]), EXPERTS),
        ("olmoe", {}, set(SEVEN[:4]), EXPERTS),
        ("llama4", {}, set(SEVEN), EXPERTS),
        ("qwen3_vl_moe", {}, set(SEVEN[:4]), EXPERTS),
        ("jetmoe", {}, {"kv_proj"}, {"input_linear.weight", "output_linear.weight"}),
        ("qwen3_moe", {"targets": ["experts"]}, set(), EXPERTS),
        ("qwen3_moe", {"targets": ["gate"]}, set(), {"gate.weight"}),
        ("gpt_oss", {"targets": ["q_proj", "router"]}, {"q_proj"}, {"router.weight"}),
        ("qwen2_moe", {"targets": ["shared_expert_gate"]}, {"shared_expert_gate"}, set()),
        ("qwen3_moe", {"exclude": ["*.experts"]}, set(SEVEN[:4]), set()),
        ("qwen3_moe", {"exclude": ["*.down_proj"]}, set(SEVEN[:4]), {"experts.gate_up_proj"}),
        ("gpt_oss", {"rslora": True, "init": "gaussian", "bias": "all"}, set(SEVEN[:4]), EXPERTS),
    ],
)
def test_what_is_adapted_is_trained_saved_and_merged(family, options, modules, parts, tmp_path):
    from peft import PeftModel

    model, found, tensors = adapted(family, **options)
    assert (found, tensors) == (modules, parts)
    ids = torch.arange(3, 35).view(2, 16)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=5.0)
    for _ in range(2):  # the second update is the first that reaches both of the matrices
        model(input_ids=ids, labels=ids).loss.backward()
        assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        before = model(input_ids=ids).logits
        assert (before - make_model(family)(input_ids=ids).logits).abs().max() > 1e-4
        model.save_pretrained(tmp_path / "adapter")
        again = PeftModel.from_pretrained(make_model(family), tmp_path / "adapter")
        assert torch.equal(before, again(input_ids=ids).logits)
        again.merge_and_unload(safe_merge=True).save_pretrained(tmp_path / "merged")
        merged = auto_class(model.config).from_pretrained(tmp_path / "merged", dtype="auto")
        assert torch.allclose(before, merged(input_ids=ids).logits, atol=1e-4)


def test_the_usual_names_train_as_many_parameters_as_peft_does_with_them():
    from peft import LoraConfig, get_peft_model

    ours, _, _ = adapted("qwen3_moe", targets=SEVEN)
    theirs = get_peft_model(make_model("qwen3_moe"), LoraConfig(r=8, target_modules=SEVEN))
    assert ours.get_nb_trainable_parameters() == theirs.get_nb_trainable_parameters()
    # A projection of its own in 4 experts x 2 layers has rank 8; gate and up are one tensor, and get 8 each.
    ranks = {p.shape[0] for name, p in ours.named_parameters() if "experts" in name and "lora_A" in name}
    assert ranks == {4 * 8, 4 * 16}


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize(
    ("family", "targets", "gate_up"),
    [
        ("qwen3_moe", "all-linear", 8),
        ("gpt_oss", "all-linear", 8),
        ("qwen3_moe", ["experts"], 8),
        ("qwen3_moe", ["gate_up_proj", "gate_proj", "up_proj", "down_proj"], 8),
        ("qwen3_moe", SEVEN, 16),
        ("mixtral", ["w1", "w2", "w3"], 16),
    ],
)
def test_rank_and_scale_are_those_of_the_recipe(family, targets, gate_up, rslora):
    """Two projections that are named have a rank each: 8 and 8 are 16 in the tensor that holds both."""
    from peft.tuners.lora import LoraLayer

    model, _, _ = adapted(family, targets=targets, rslora=rslora)
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    expected = 32 / 8**0.5 if rslora else 32 / 8
    assert {round(layer.scaling["default"], 6) for layer in layers} == {round(expected, 6)}
    tensors = {getattr(layer, "parameter_name", "layer"): layer.r["default"] for layer in layers}
    assert tensors.pop("gate_up_proj") == gate_up
    assert set(tensors.values()) == {8}


def test_a_dense_layer_that_peft_takes_for_experts_is_adapted_as_any_other():
    """PEFT 0.21 rewrites `gate_proj` to the experts' tensor in these families, and forgets layers without experts."""
    from peft import LoraConfig, get_peft_model

    theirs = get_peft_model(make_model("qwen3_moe_dense"), LoraConfig(r=8, target_modules=SEVEN))
    assert not any("layers.0.mlp" in name for name, p in theirs.named_parameters() if p.requires_grad)
    ours, _, _ = adapted("qwen3_moe_dense", targets=SEVEN)
    trained = [p.numel() for name, p in ours.named_parameters() if p.requires_grad and "layers.0.mlp" in name]
    assert sum(trained) == 3 * 8 * (64 + 128)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"dropout": 0.05}, "`dropout: 0.05` cannot be used where PEFT adapts a tensor and no layer"),
        ({"dora": True}, "Set `dora: false`, or leave such tensors out: `exclude: ['*.experts']`."),
        ({"init": "orthogonal"}, "Set `init: default`, or leave"),
        ({"targets": ["gate_proj", "q_proj"]}, "Add 'up_proj' to `targets`, or leave the experts out"),
        (
            {"targets": ["q_proj", "gate"], "exclude": ["*mlp.gate"]},
            "`exclude` leaves out all that target 'gate' names",
        ),
        ({"targets": ["mlp"]}, "target 'mlp' is not a layer that can be adapted. Name layers in it: experts, gate."),
    ],
)
def test_what_cannot_be_done_with_experts_is_refused_with_a_way_out(options, expected):
    (text,) = problems("qwen3_moe", **options)
    assert expected in text


@pytest.mark.parametrize("option", [{"dropout": 0.05}, {"dora": True}, {"init": "pissa"}])
@pytest.mark.parametrize("family", ["qwen3_moe", "qwen3_moe_dense", "deepseek_v3"])
def test_the_ways_out_lead_out(option, family):
    import ast
    import re

    (text,) = problems(family, **option)
    exclude = ast.literal_eval(re.search(r"exclude: (\[.*?\])", text)[1])
    assert problems(family, **option, exclude=exclude) == []
    name, value = re.search(r"Set `(\w+): (\w+)`", text).groups()
    assert problems(family, **{**option, name: {"0": 0, "false": False}.get(value, value)}) == []


def test_one_half_may_be_named_where_the_experts_are_left_out():
    _, modules, parts = adapted("qwen3_moe_dense", targets=["gate_proj"], exclude=["*.experts"])
    assert (modules, parts) == (set(), {"gate_proj.weight"})


def test_a_misspelt_name_is_answered_with_a_name_that_is_there():
    (text,) = problems("qwen3_moe", targets=["gate_up_porj"])
    assert "Did you mean 'gate_up_proj'?" in text


def test_a_run_says_what_is_adapted_and_what_is_not(recipe_file, twin, command, tmp_path):
    targets = ["k_proj", "gate_proj", "up_proj", "down_proj"]
    file = recipe_file(model=str(twin("gpt_oss")), adapter={"type": "lora", "r": 8, "targets": targets})
    result = command("check", file)
    assert "note: without adapter: " in result.output
    assert "note: adapter 'lora': the update of gate_up_proj has rank 16" in result.output
    assert "note: adapter 'lora' trains beside: down_proj (2), gate_up_proj (2), k_proj (2)" in result.output
    assert "note: without adapter: " in command("explain", file, "adapter").output
    assert "note: " not in command("explain", file).output
    result = command("train", file)
    assert result.exit_code == 0, result.exception
    said = " ".join(result.output.split())
    assert "trained modules: down_proj (2), gate_up_proj (2, rank 16), k_proj (2)" in said
    assert "without adapter: 4" in said
    result = command("merge", tmp_path / "out", "--output", tmp_path / "merged")
    assert result.exit_code == 0, result.exception


def test_experts_without_adapter_are_told(recipe_file, twin, command):
    file = recipe_file(model=str(twin("gpt_oss")), adapter={"type": "lora", "targets": ["q_proj"]})
    result = command("check", file)
    assert "(gate_up_proj" in result.output.replace("experts.gate_up_proj", "gate_up_proj")
    assert "without adapter: 97" in result.output


def test_a_router_that_peft_trains_is_told(recipe_file, twin, command):
    file = recipe_file(model=str(twin("qwen3_moe")), adapter={"type": "peft_lora", "target_modules": "all-linear"})
    assert "also trains the routers of the experts, such as model.layers.0.mlp.gate" in command("check", file).output


def test_experts_that_stay_floats_are_told_with_their_bytes(recipe_file, twin, command):
    experts = 2 * 4 * (64 * 64 + 64 * 32) * 2  # layers, experts, their matrices, bytes
    file = recipe_file(model=str(twin("qwen3_moe")), adapter="qlora", quantization=None)
    result = command("check", file)
    assert f"stay in bfloat16: {experts / 1e6:,.2f} MB of " in result.output
    result = command("train", file)
    assert f"{experts:,} bytes of them stay floats" in " ".join(result.output.split())


def test_a_plan_that_does_not_fit_because_of_experts_says_so(recipe_file, tmp_path, command):
    from transformers import AutoConfig

    sizes = {"num_experts": 128, "num_hidden_layers": 48, "hidden_size": 2048, "moe_intermediate_size": 768}
    AutoConfig.for_model("qwen3_moe", **sizes, num_experts_per_tok=8).save_pretrained(tmp_path / "large")
    file = recipe_file(model=str(tmp_path / "large"), adapter="qlora", quantization=None)
    result = command("plan", file, "--device", "RTX4090", "--rows", "100")
    said = " ".join(result.output.split())
    assert "the experts are tensors and no layers, and stay in bfloat16: 57.98 GB of " in said
    assert "launch.strategy=fsdp2 launch.processes=" in said or "several devices (`launch.strategy: fsdp2`)" in said
    assert "smaller model" not in said or "less in its experts" in said


def test_quantized_experts_can_still_not_be_adapted():
    """Why they stay in 16 bits: a library in which this fails has learned it, and `docs/adapters.md` is to change."""
    from bitsandbytes.nn.parametrize import replace_parameter_4bit
    from peft import LoraConfig, get_peft_model
    from transformers import BitsAndBytesConfig
    from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer

    def quantize(model):
        for module in [module for module in model.modules() if type(module).__name__ == "Qwen3MoeExperts"]:
            replace_parameter_4bit(module, "gate_up_proj")
        return model

    quantizer, plain = Bnb4BitHfQuantizer(BitsAndBytesConfig(load_in_4bit=True)), make_model("qwen3_moe")
    assert not quantizer.param_needs_quantization(plain, "model.layers.0.mlp.experts.gate_up_proj")
    config = LoraConfig(r=2, target_modules=["q_proj"], target_parameters=["experts.gate_up_proj"],
                        init_lora_weights=False)  # fmt: skip
    with pytest.warns(RuntimeWarning, match="no parameter was matched"):
        get_peft_model(quantize(make_model("qwen3_moe")), config)
    late, ids = quantize(get_peft_model(plain, config)), torch.arange(3, 35).view(2, 16)
    with torch.no_grad(), pytest.warns(UserWarning, match="Could not find any LoRA parametrization"):
        first, second = late(input_ids=ids).logits, late(input_ids=ids).logits
    assert (first - second).abs().max() > 0.01  # its update is on the tensor twice by then
