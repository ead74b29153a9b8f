"""Models with a state beside attention: packed where their own code keeps documents apart, else refused."""

import importlib

import pytest
import torch
from conftest import rows
from transformers import AutoConfig, AutoModelForCausalLM

import sftplug
from sftplug import ModelError
from sftplug.model.packing_check import carries_state, check_isolation, document_marks
from sftplug.training.collator import Collator, blank_rows

WIDTH = {"vocab_size": 128, "hidden_size": 32, "intermediate_size": 64, "pad_token_id": 0}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_chunk_size": 16}
DELTA = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
HYBRIDS = {
    "qwen3_5_text": {**WIDTH, **HEADS, **DELTA, "num_hidden_layers": 2},
    "mamba2": {**WIDTH, "num_hidden_layers": 2, "num_heads": 4, "head_dim": 16, "state_size": 16, "n_groups": 2},
    "nemotron_h": {
        **WIDTH,
        **HEADS,
        "layers_block_type": ["mamba", "attention"],
        "mamba_num_heads": 4,
        "mamba_head_dim": 16,
        "ssm_state_size": 16,
        "n_groups": 2,
        "chunk_size": 16,
    },
    "granitemoehybrid": {
        **WIDTH,
        **MAMBA,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "num_hidden_layers": 2,
        "layer_types": ["mamba", "attention"],
        "shared_intermediate_size": 64,
        "num_local_experts": 0,
        "num_experts_per_tok": 0,
    },
    "falcon_h1": {**WIDTH, **HEADS, **MAMBA, "num_hidden_layers": 2, "mamba_d_ssm": 64},
    "lfm2": {
        **WIDTH,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "num_hidden_layers": 2,
        "layer_types": ["conv", "full_attention"],
        "block_auto_adjust_ff_dim": False,
        "initializer_range": 0.2,  # a convolution over three tokens says little where weights are small
    },
}
"""Family -> a tiny model of it with every kind of its mixers."""
HEEDING = [family for family in HYBRIDS if family != "mamba2"]
"""Those whose own code hands on what a batch says of documents; that of Mamba 2 itself drops it."""
KERNELS = ("causal_conv1d_fn", "torch_chunk_gated_delta_rule", "mamba2_chunk_scan")
"""What transformers takes from other packages where these are, under the names that models call them by."""

pytestmark = pytest.mark.filterwarnings("ignore:.*falling back to its reference")


def tiny(family):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **HYBRIDS[family])).eval()


def apart(plain, dimension):
    """Return a kernel that heeds documents, made of one that does not: each of them goes through it by itself."""

    def kernel(*tensors, seq_idx=None, cu_seqlens=None, **options):
        if cu_seqlens is not None:
            sizes = cu_seqlens.diff().tolist()
        elif seq_idx is not None:
            sizes = torch.unique_consecutive(seq_idx[0], return_counts=True)[1].tolist()
        else:
            return plain(*tensors, **options)
        length = sum(sizes)

        def cut(value):
            along = torch.is_tensor(value) and value.dim() > dimension and value.shape[dimension] == length
            return value.split(sizes, dimension) if along else [value] * len(sizes)

        many = list(zip(*map(cut, tensors), strict=True)) if tensors else [()] * len(sizes)
        named = {name: cut(value) for name, value in options.items()}
        found = [plain(*each, **{name: value[at] for name, value in named.items()}) for at, each in enumerate(many)]
        if isinstance(found[0], tuple):
            return torch.cat([one[0] for one in found], dimension), found[-1][1]
        return torch.cat(found, dimension)

    return kernel


@pytest.fixture
def kernels(monkeypatch):
    """Return a function that gives a family kernels that heed documents, as the packages for GPUs do."""

    def give(family):
        module = importlib.import_module(type(tiny(family)).__module__)
        for name in KERNELS:
            if hasattr(module, name):
                plain = getattr(module, name).__wrapped__
                monkeypatch.setattr(module, name, apart(plain, 2 if name == "causal_conv1d_fn" else 1))

    return give


def test_models_with_a_state_are_told_from_others():
    assert all(carries_state(tiny(family)) for family in HYBRIDS)
    plain = {**WIDTH, **HEADS, "num_hidden_layers": 1}
    assert not carries_state(AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **plain)))


@pytest.mark.parametrize("family", HEEDING)
def test_without_kernels_that_heed_documents_packing_is_refused_naming_them(family):
    with pytest.raises(ModelError) as refused:
        check_isolation(tiny(family))
    said = str(refused.value)
    assert "packing would let documents see each other in this model (" in said
    assert "Install `" in said
    assert said.endswith("Set `data.packing: none`.")


@pytest.mark.parametrize("family", HYBRIDS)
def test_without_marks_a_model_with_a_state_leaks(family):
    with pytest.raises(ModelError, match=r"another first document changes the second one's logits by"):
        check_isolation(tiny(family), marked=False)


@pytest.mark.parametrize("family", [family for family in HEEDING if family != "granitemoehybrid"])
def test_with_kernels_that_heed_documents_the_marks_of_a_batch_keep_them_apart(family, kernels):
    kernels(family)
    assert check_isolation(tiny(family)) <= 1e-4


@pytest.mark.parametrize("family", ["mamba2", "granitemoehybrid"])
def test_code_that_drops_the_marks_is_refused_whatever_its_kernels(family, kernels):
    """Mamba 2 hands nothing on to its mixers; Granite does, and makes the mask of its attention without positions."""
    kernels(family)
    with pytest.raises(ModelError, match=r"another first document changes the second one's logits by"):
        check_isolation(tiny(family))


@pytest.mark.parametrize("family", ["qwen3_5_text", "lfm2"])
def test_a_packed_run_of_a_hybrid_has_the_loss_of_the_documents_apart(family, kernels, recipe_file, run):
    config = {key: value for key, value in HYBRIDS[family].items() if key not in ("vocab_size", "pad_token_id")}
    build = {"type": "random", "config": {"model_type": family, **config, "max_position_embeddings": 512}}
    file = recipe_file(data=rows(12), model={"build": build}, adapter="lora")
    kernels(family)
    once = ["train.max_steps=1", "train.learning_rate=0", "train.per_device_train_batch_size=4"]
    apart, packed = run(file, *once, "train.gradient_accumulation_steps=3"), run(file, *once, "data.packing=rows")
    assert packed.log[0]["loss"] == pytest.approx(apart.log[0]["loss"], abs=1e-4)
    assert packed.tokens == apart.tokens


def test_a_packed_run_of_a_hybrid_is_refused_where_its_kernels_are_missing_and_trains_as_advised(recipe_file, run):
    config = {key: value for key, value in HYBRIDS["lfm2"].items() if key not in ("vocab_size", "pad_token_id")}
    build = {"type": "random", "config": {"model_type": "lfm2", **config, "max_position_embeddings": 512}}
    file = recipe_file(model={"build": build}, adapter="lora")
    with pytest.raises(ModelError, match=r"Set `data.packing: none`"):
        run(file, "data.packing=rows", "train.max_steps=1")
    assert run(file, "data.packing=none", "train.max_steps=1").loss > 0


def test_marks_say_where_each_document_begins_and_padding_is_one():
    packed = [
        {"input_ids": [1, 2, 3, 4, 5], "labels": [-100, 2, 3, -100, 5], "seq_lengths": [3, 2]},
        {"input_ids": [6, 7], "labels": [-100, 7], "seq_lengths": [2]},
    ]
    batch = Collator(0, pad_to_multiple_of=8, flat=True, marked=True)(packed)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5, 6, 7, 0]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0, 1, 0]]
    assert batch["cu_seq_lens_q"].tolist() == batch["cu_seq_lens_k"].tolist() == [0, 3, 5, 7, 8]
    assert batch["seq_idx"].tolist() == [[0, 0, 0, 1, 1, 2, 2, 3]]
    assert (batch["max_length_q"], batch["max_length_k"]) == (3, 3)
    assert batch["real_tokens"].tolist() == [5, 2]
    assert {key: value for key, value in document_marks([3, 2, 2, 1]).items() if key == "max_length_q"} == {
        "max_length_q": 3
    }


def test_rows_that_only_fill_up_a_batch_laid_end_to_end_count_for_nothing():
    packed = [
        {"input_ids": [1, 2, 3, 4, 5], "labels": [-100, 2, 3, -100, 5], "seq_lengths": [3, 2]},
        {"input_ids": [6, 7], "labels": [-100, 7], "seq_lengths": [2]},
    ]
    batch = Collator(0, flat=True, marked=True)(packed)
    blank_rows(batch, 1, 2)
    assert batch["labels"].tolist() == [[-100, 2, 3, -100, 5, -100, -100]]
    assert batch["real_tokens"].tolist() == [5, 0]


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("family", ["mamba2", "nemotron_h", "granitemoehybrid", "falcon_h1"])
def test_lora_leaves_out_what_the_kernels_of_mamba_read_without_calling_it(family):
    adapter = sftplug.load(
        {
            "model": "org/model",
            "data": {"train": {"hub": "org/rows", "format": "messages"}},
            "adapter": "lora",
        }
    ).recipe.adapter
    model = tiny(family)
    assert list(adapter.check_model(model)) == []
    from peft import get_peft_model

    names = [name for name, _ in get_peft_model(model, adapter.peft_config()).named_modules() if "lora_A" in name]
    mixers = [name for name in names if ".in_proj." in name]
    assert mixers
    assert not [name for name in names if ".out_proj." in name]
