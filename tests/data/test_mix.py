"""Shares are met, epochs are counted, the same seed draws the same rows, and what is left out is said."""

import numpy as np
import pytest
from conftest import rows, write_rows
from hypothesis import given
from hypothesis import strategies as st

from sftplug import RecipeError
from sftplug.data.mix import Available, mix


def source(name, first, sizes, share=None, epochs=1.0):
    return Available(name, first, np.array(sizes, dtype=np.float64), share, epochs)


def test_without_shares_and_epochs_the_rows_stay_as_they_are():
    assert mix([source("a", 0, [1, 1]), source("b", 2, [1])], "first", 0) == (None, [])


def test_epochs_repeat_rows_and_a_fraction_draws_them_by_the_seed():
    order, mixed = mix([source("a", 0, [1] * 4, epochs=2.5), source("b", 4, [1] * 2)], "first", 0)
    counts = np.bincount(order, minlength=6).tolist()
    assert sorted(counts[:4]) == [2, 2, 3, 3]
    assert counts[4:] == [1, 1]
    assert [(item.rows, item.passes, item.unused) for item in mixed] == [(10, 2.5, 0), (2, 1.0, 0)]
    again, _ = mix([source("a", 0, [1] * 4, epochs=2.5), source("b", 4, [1] * 2)], "first", 0)
    assert order.tolist() == again.tolist()


def test_stop_first_uses_no_row_twice_and_stop_all_uses_every_row():
    sources = [source("big", 0, [1] * 90, share=1), source("small", 90, [1] * 10, share=1)]
    order, mixed = mix(sources, "first", 0)
    assert max(np.bincount(order)) == 1
    assert [(item.rows, item.unused) for item in mixed] == [(10, 80), (10, 0)]
    order, mixed = mix(sources, "all", 0)
    assert [(item.rows, item.passes, item.unused) for item in mixed] == [(90, 1.0, 0), (90, 9.0, 0)]


@given(
    st.lists(st.lists(st.integers(1, 50), min_size=30, max_size=90), min_size=2, max_size=4),
    st.lists(st.floats(0.2, 5), min_size=4, max_size=4),
    st.sampled_from(["first", "all"]),
    st.integers(0, 9),
)
def test_shares_are_met_to_within_a_row(sizes, shares, stop, seed):
    first = np.cumsum([0, *map(len, sizes)])
    sources = [source(str(i), int(first[i]), size, share=shares[i]) for i, size in enumerate(sizes)]
    order, mixed = mix(sources, stop, seed)
    assert order.tolist() == mix(sources, stop, seed)[0].tolist()
    total = sum(
        sum(np.array(size)[order[(order >= low) & (order < low + len(size))] - low])
        for size, low in zip(sizes, first, strict=False)
    )
    for item, size in zip(mixed, sizes, strict=True):
        assert abs(item.realised - item.share) * total <= len(sizes) * 50 + 1
        assert item.unused <= len(size)
    if stop == "first":
        assert np.bincount(order).max() == 1
    else:
        assert sum(item.unused for item in mixed) == 0 or len(mixed) > 1


def test_sources_with_their_own_format_masking_and_template_arguments_mix(recipe_file, prepared):
    file = recipe_file()
    folder = file.parent
    write_rows(folder / "alpaca.jsonl", [{"instruction": f"Say {n}.", "output": f"{n}."} for n in range(10)])
    write_rows(folder / "text.jsonl", [{"text": "Once upon a time."}] * 10)
    data = {
        "train": [
            {"path": str(folder / "rows.jsonl"), "format": "messages", "share": 0.5},
            {
                "path": str(folder / "alpaca.jsonl"),
                "format": "alpaca",
                "share": 0.25,
                "masking": ["assistant", {"end_of_turn": "mask"}],
            },
            {"path": str(folder / "text.jsonl"), "format": "text", "share": 0.25, "masking": "all"},
        ],
        "mix": {"by": "trained_tokens"},
        "max_length": 256,
    }
    ready = prepared(recipe_file(data=rows(20)), f"data={data}")
    assert [round(item.realised, 1) for item in ready.ledger.mixed] == [0.5, 0.2, 0.2] or all(
        abs(item.realised - item.share) < 0.05 for item in ready.ledger.mixed
    )
    assert len(ready.order) == len(ready.train) == sum(item.rows for item in ready.ledger.mixed)
    again = prepared(file, f"data={data}")
    assert again.train["input_ids"] == ready.train["input_ids"]
    trained = [ready.tokenizer.decode([label for label in row["labels"] if label != -100]) for row in ready.train]
    assert "Once upon a time.<|endoftext|>" in trained
    assert any(text.strip(".").isdigit() for text in trained)


def test_a_share_for_some_sources_only_is_refused(recipe_file, prepared):
    one, other = (
        {"path": "rows.jsonl", "format": "messages", "share": 1},
        {"path": "rows.jsonl", "format": "messages"},
    )
    with pytest.raises(RecipeError, match=r"data\.train\[1\].*: has no `share`, and other sources have one"):
        prepared(recipe_file(), f"data.train={[one, other]}")
    with pytest.raises(RecipeError, match=r"data\.eval.*: `share` and `epochs` are for training rows"):
        prepared(recipe_file(), f"data.eval={[one]}")


def test_a_source_says_what_it_needs(recipe_file, prepared):
    with pytest.raises(RecipeError, match="needs exactly one of `path` and `hub`, or a `source`"):
        prepared(recipe_file(), "data.train=[{format: messages}]")
    with pytest.raises(RecipeError, match=r"unknown key\. Did you mean 'columns'\? Known: .*epochs.*path"):
        prepared(recipe_file(), "data.train=[{path: rows.jsonl, format: messages, colums: [a]}]")
    with pytest.raises(RecipeError, match="'fil' is not installed"):
        prepared(recipe_file(), "data.train=[{source: fil, path: rows.jsonl, format: messages}]")
