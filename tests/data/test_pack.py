"""Packing loses nothing, cuts nothing, and keeps documents apart."""

import numpy as np
import pytest
import torch
from conftest import rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from sftplug import ModelError, RecipeError
from sftplug.data.pack import best_fit_decreasing, pack
from sftplug.data.token_table import Columns, RowSizes, TokenWriter, open_dataset, row_sums
from sftplug.model.packing_check import check_isolation

LENGTHS = st.lists(st.integers(1, 64), max_size=60)


@given(LENGTHS)
def test_every_document_is_in_one_row_that_holds_it(lengths):
    packed = best_fit_decreasing(lengths, 64)
    assert sorted(index for row in packed for index in row) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in row) <= 64 for row in packed)
    least = -(-sum(lengths) // 64)
    assert len(packed) <= 11 / 9 * max(least, sum(length > 32 for length in lengths)) + 2


def test_a_document_longer_than_a_row_is_refused():
    with pytest.raises(ValueError, match="document 1 has 65 tokens, and a row holds 64"):
        best_fit_decreasing([3, 65], 64)


def write(file, documents, weights):
    writer = TokenWriter(file)
    flat = np.array([token for document in documents for token in document], dtype=np.int32)
    columns = Columns(flat, np.array(weights, np.float32), flat.astype(np.uint16))  # told by its id, for the test
    lengths = np.array([len(document) for document in documents])
    writer.write(columns, RowSizes(lengths, row_sums(columns.weights, lengths)), np.ones(len(documents), bool))
    return writer.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LENGTHS.filter(bool), st.randoms())
def test_packed_rows_hold_the_same_ids_labels_and_weights(tmp_path, lengths, random):
    rng = np.random.default_rng(0)
    documents = [rng.integers(0, 99, length).tolist() for length in lengths]
    measures = write(tmp_path / "rows", documents, [1.0] * sum(lengths))
    order = random.choices(range(len(lengths)), k=len(lengths) + 3)  # a mix may repeat a document, or leave one out
    placed, packing = pack(tmp_path / "rows", tmp_path / "packed", np.array(order), measures.lengths, 64)
    packed = open_dataset(tmp_path / "packed", weighted=True, provenance=True)
    assert (packing.documents, packing.rows) == (len(order), len(packed))
    where = iter(placed.tolist())
    for row in packed:
        at = 0
        assert row["provenance"] == row["input_ids"]
        assert sum(row["seq_lengths"]) == len(row["input_ids"]) == len(row["labels"]) == len(row["weights"])
        for length in row["seq_lengths"]:
            document = documents[next(where)]
            assert row["input_ids"][at : at + length] == document
            assert row["labels"][at : at + length] == [-100, *document[1:]]
            assert row["weights"][at : at + length] == [0.0, *[1.0] * (length - 1)]
            at += length
        assert next(where) == -1
    assert sorted(number for number in placed.tolist() if number >= 0) == sorted(order)


SMALL = {"vocab_size": 128, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
LLAMA = {**SMALL, "intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 16, "pad_token_id": 0}


def tiny(family, **options):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **options)).eval()


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text"])
def test_families_that_keep_documents_apart_pass_the_probe(family, caplog):
    with caplog.at_level("INFO"):
        assert check_isolation(tiny(family, **LLAMA)) <= 1e-4
    assert "another first document changes the second one's logits by " in caplog.text


def test_logits_that_are_no_numbers_prove_nothing():
    model = tiny("llama", **LLAMA)
    torch.nn.init.constant_(model.lm_head.weight, float("nan"))
    with pytest.raises(ModelError, match="documents see each other"):
        check_isolation(model)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("gpt_oss", {**LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2}),
        ("bloom", {"vocab_size": 128, "hidden_size": 32, "n_layer": 2, "n_head": 2}),
        (
            "mamba2",
            {
                "vocab_size": 128,
                "hidden_size": 32,
                "num_hidden_layers": 2,
                "num_heads": 4,
                "head_dim": 16,
                "state_size": 16,
                "n_groups": 2,
            },
        ),
    ],
)
@pytest.mark.filterwarnings("ignore")  # kernels that a CPU does not have
def test_families_that_leak_are_refused_by_name(family, options):
    with pytest.raises(ModelError, match=rf"packing would let documents see each other in this model \({family}\)"):
        check_isolation(tiny(family, **options))


def test_packed_training_has_the_loss_of_the_documents_apart(recipe_file, run):
    data = rows(12)
    file = recipe_file(data=data)
    once = ["train.max_steps=1", "train.learning_rate=0", "train.per_device_train_batch_size=12"]
    apart, packed = run(file, *once), run(file, *once, "data.packing=rows")
    assert packed.log[0]["loss"] == pytest.approx(apart.log[0]["loss"], abs=1e-5)
    assert packed.tokens == apart.tokens


def test_packed_float_weights_are_the_same_weighted_mean(recipe_file, run):
    data = rows(12)
    for index, row in enumerate(data):
        row["messages"][1]["weight"] = 0.5 + index % 3
    file = recipe_file(data=data, masking=["assistant", "message_weights"])
    once = ["train.max_steps=1", "train.learning_rate=0", "train.per_device_train_batch_size=12"]
    apart = run(file, *once)
    packed = run(
        file, *once, "data.packing=rows", "train.per_device_train_batch_size=1", "train.gradient_accumulation_steps=12"
    )
    assert packed.log[0]["loss"] == pytest.approx(apart.log[0]["loss"], abs=1e-5)


def test_packing_is_accounted_for_and_shown(recipe_file, prepared):
    ready = prepared(recipe_file(data=rows(20)), "data.packing=rows", "data.max_length=128")
    packing = ready.ledger.packed["train"]
    assert packing.documents == 20
    assert packing.rows == len(ready.train) < 20
    assert 0.5 < packing.fill <= 1
    assert ready.ledger.to_dict()["packed"]["train"]["rows"] == packing.rows


def test_packing_needs_a_length_and_attention_that_it_is_laid_out_for(recipe_file, prepared):
    with pytest.raises(RecipeError, match=r"data\.packing .*: needs `data\.max_length`"):
        prepared(recipe_file(), "data.packing=rows", "data.max_length=null")
    with pytest.raises(RecipeError, match=r"is laid out for sdpa and eager attention"):
        prepared(recipe_file(), "data.packing=rows", "model.attn_implementation=flash_attention_2")
