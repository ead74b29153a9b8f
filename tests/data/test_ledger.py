from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from sftplug.data.limits import _nothing_left
from sftplug.recipe import load_recipe
from sftplug.types.ledger import MOST_ORIGINS, Account, Ledger, length_quantiles


def test_an_account_balances_what_was_read_with_what_became_of_it():
    account = Account("a.jsonl", read=3)
    account.drop("bad", "a.jsonl:1", "output: is missing")
    account.keep(10, 8.0, 4, added=False)
    assert not account.balanced()
    account.drop("too long", "a.jsonl:3", "99 tokens, 50 allowed")
    assert account.balanced()
    account.keep(5, 2.5, 5, added=True)
    assert account.balanced()
    assert account.to_dict()["trained_share"] == 9 / 15


def test_counts_are_complete_and_reasons_are_the_first_ones():
    account = Account("a.jsonl")
    for line in range(MOST_ORIGINS + 7):
        account.drop("bad", f"a.jsonl:{line}", "output: is missing")
    assert account.dropped["bad"] == MOST_ORIGINS + 7
    assert len(account.reasons["bad"]) == MOST_ORIGINS
    assert account.reasons["bad"][0] == "a.jsonl:0: output: is missing"


@given(st.lists(st.integers(1, 5000), min_size=1))
def test_length_quantiles_leave_the_said_share_below(lengths):
    for name, length in length_quantiles(Counter(lengths)).items():
        share = float(name.rstrip("%")) / 100
        assert sum(item <= length for item in lengths) >= share * len(lengths)
        assert sum(item < length for item in lengths) < share * len(lengths)


def test_a_ledger_keeps_the_order_of_the_sources():
    ledger = Ledger()
    for split, source in [("train", "b"), ("train", "a"), ("eval", "c")]:
        ledger.open(split, source)
    assert [(split, account.source) for split, account in ledger.accounts()] == [
        ("train", "b"),
        ("train", "a"),
        ("eval", "c"),
    ]


def test_a_split_from_which_no_row_was_drawn_is_refused_in_words():
    """Nothing is said of lengths where no row was too long."""
    data = load_recipe("tasks/mixed").recipe.data
    (said,) = _nothing_left(Ledger({"eval": [Account("rows.jsonl")]}), data)
    assert said.startswith("no row of the split 'eval' is left: `data.eval_fraction: 0.01`")
    assert "max_length" not in said
