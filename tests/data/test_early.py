"""Rows that are certainly too long are left out before they are rendered, and no other row is."""

import json

import pytest
from conftest import rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sftplug import DataError
from sftplug.data.encoder import encoder
from sftplug.data.engine.token_bytes import spelling_of, widest
from sftplug.data.too_long import _shown_bytes
from sftplug.model.loading import load_tokenizer
from sftplug.recipe import load_recipe

LONG = "word " * 60_000
USER, REPLY = {"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hi."}
# ChatML that refuses whatever is long: a row that gets as far as the template is unsafe.
WATCHED = (
    "{% for m in messages %}{% if m.content | length > 1000 %}{{ raise_exception('it was rendered') }}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def chat(*texts, **keys):
    """Return a row of turns that users open."""
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[index % 2], "content": text} for index, text in enumerate(texts)], **keys}


@pytest.fixture
def check(recipe_file, prepared, tmp_path):
    """Return what became of a row beside 24 short ones, under a template that refuses to render long ones."""
    (tmp_path / "watched.jinja").write_text(WATCHED)

    def go(row, *overrides):
        file = recipe_file(data=[*rows(24), row], chat_template={"file": "watched.jinja"})
        (account,) = prepared(file, "data.max_loss=1", *overrides).ledger.splits["train"]
        return account

    return go


@pytest.mark.parametrize(
    "row",
    [
        chat(LONG, "Hi."),
        chat("Hello?", LONG),
        chat(LONG, "Hi.", "Well?", "Yes."),
        {"messages": [{"role": "user", "content": [{"type": "text", "text": LONG}]}, REPLY]},
    ],
)
def test_a_row_that_is_certainly_too_long_is_not_rendered(check, row):
    account = check(row)
    assert (account.read, account.kept, dict(account.dropped)) == (25, 24, {"too long": 1})
    assert account.reasons["too long"][0].endswith(" tokens, 256 allowed: left out before it is rendered")
    assert account.balanced()
    assert (account.unmeasured, sum(account.lengths.values())) == (1, 24)
    assert account.to_dict()["length_quantiles"].keys() == {"50%", "90%"}


@pytest.mark.parametrize(
    ("row", "overrides"),
    [
        (chat(LONG, "Hi."), ["data.too_long=truncate"]),
        (chat(LONG, "Hi."), ["data.too_long=split_at_turns"]),
        (chat(LONG, "Hi."), ["data.too_long=drop_oldest_turns"]),
        (chat(LONG, "Hi."), ["data.max_length=null"]),
        (chat(LONG, "Hi."), ["data.special_tokens_in_content=error"]),
        # The turn before the long one may be shown differently at inference, and be a row of its own that fits.
        (chat("Hello?", "Hi.", LONG, "Yes."), []),
        # What a template may leave out says nothing of how long the text is.
        ({"messages": [{"role": "system", "content": LONG}, USER, REPLY]}, []),
        (chat("Hello?", f"<think>{LONG}</think>Hi."), []),
        (chat(" " * 300_000 + "Hello?", "Hi."), []),
    ],
)
def test_a_row_of_which_something_might_be_kept_is_rendered(check, row, overrides):
    with pytest.raises(Exception, match="it was rendered"):
        check(row, *overrides)


def test_where_no_turn_becomes_a_row_of_its_own_all_messages_count(check):
    account = check(chat("Hello?", "Hi.", LONG, "Yes."), "spans.on_divergence=warn")
    assert dict(account.dropped) == {"too long": 1}


def test_a_row_without_anything_to_train_is_empty_however_long_it_is(recipe_file, prepared):
    file = recipe_file(data=[*rows(24), {"messages": [{"role": "user", "content": LONG}]}])
    account = prepared(file, "data.on_empty=drop").ledger.splits["train"][0]
    assert dict(account.dropped) == {"empty": 1}


def test_a_policy_that_allows_no_long_row_refuses_it(recipe_file, prepared):
    file = recipe_file(data=[*rows(24), chat(LONG, "Hi.")])
    with pytest.raises(
        DataError, match=r"1 of 25 rows of .* are too long:\n  rows\.jsonl:25: at least \d+ tokens, 256 al"
    ):
        prepared(file, "data.too_long=error")


def test_what_such_rows_would_have_trained_counts_as_lost(recipe_file, prepared):
    file = recipe_file(data=[*rows(24), chat("Hello?", LONG)])
    with pytest.raises(DataError, match=r"99\.\d% of its trained tokens would be lost, 1\.0% are allowed") as caught:
        prepared(file)
    assert str(caught.value).endswith("%` to do without them.")  # no max_length is known that would keep it
    # About as much as is lost where the row is rendered.
    early = prepared(file, "data.max_loss=1").ledger.splits["train"][0]
    late = prepared(file, "data.max_loss=1", "data.too_long=split_at_turns").ledger.splits["train"][0]
    assert early.lost == pytest.approx(late.lost, rel=0.01)
    # The answer is short here, and so is what is lost.
    asked = prepared(recipe_file(data=[*rows(24), chat(LONG, "Hi.")]), "data.max_loss=5%").ledger.splits["train"][0]
    assert 0 < asked.lost < 10


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.text()
        | st.sampled_from(["the ", "=" * 80, "é", "e\u0301", "\u1100\u1161\u11a8", "\n\n\n", "漢字", "<|im_end|>"])
    )
)
def test_a_text_has_at_least_so_many_tokens(encode, pieces):
    text = "".join(pieces).encode("utf-8", "ignore").decode()
    assert _shown_bytes(text) / encode.engines.widest <= len(encode.engines.slow.ids([text])[0])


@pytest.fixture(scope="module")
def encode(tmp_path_factory):
    from conftest import TINY

    file = tmp_path_factory.mktemp("early") / "recipe.yaml"
    data = {"train": {"path": "rows.jsonl", "format": "messages"}}
    (file.parent / "rows.jsonl").write_text("{}")
    file.write_text(json.dumps({"model": {"build": TINY}, "data": data, "quantization": "fp32"}))
    return encoder(load_tokenizer(load_recipe(str(file)).recipe))


def test_where_a_token_may_stand_for_anything_nothing_is_certain(encode):
    state = json.loads(encode.engines.slow.backend.to_str())
    spelling = spelling_of(state)
    assert widest(state, spelling) == int(spelling.length.max()) > 1
    assert widest({**state, "normalizer": {"type": "NFC"}}, spelling) == widest(state, spelling)
    assert widest({**state, "normalizer": {"type": "Lowercase"}}, spelling) is None
    assert widest({**state, "pre_tokenizer": {"type": "Whitespace"}}, spelling) is None
    assert widest({**state, "model": {**state["model"], "type": "WordPiece"}}, spelling) is None
    lacking = {name: index for name, index in state["model"]["vocab"].items() if name != "Ā"}
    assert widest({**state, "model": {**state["model"], "vocab": lacking}}, spelling) is None
