"""Rows that come as tokens: their ids and labels reach the trainer as they are, or the row is refused in words."""

import pytest
from conftest import TINY, write_rows

import sftplug
from sftplug import Conversation, DataError, Message, RowError, RowTokens
from sftplug_formats import Tokenized
from sftplug_tiny.builder import build_tokenizer

TEXT = "<|im_start|>user\nHow?<|im_end|>\n<|im_start|>assistant\nBoil it: é 🌊 ﬁ.<|im_end|>\n"


@pytest.fixture
def ready(tmp_path):
    """Return a function that prepares rows whose format is left out."""

    def prepare(rows, *, data=None, source=None, **sections):
        train = {"path": str(write_rows(tmp_path / "rows.jsonl", rows)), **(source or {})}
        recipe = {"model": {"build": TINY}, "data": {"train": train, **(data or {})}, "chat_template": "chatml"}
        return sftplug.prepare(sftplug.load({**recipe, **sections}))

    return prepare


@pytest.fixture(scope="module")
def row():
    """A conversation as tokens, of which the reply is trained."""
    tokenizer = build_tokenizer(1024)  # that of `TINY`
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    begin = len(tokenizer(TEXT.partition("Boil")[0], add_special_tokens=False)["input_ids"])
    labels = [-100] * begin + ids[begin:-1] + [-100]
    return {"input_ids": ids, "labels": labels, "attention_mask": [1] * len(ids)}


def refused(row, **options):
    with pytest.raises(RowError) as caught:
        Tokenized(**options).to_conversation(row)
    return str(caught.value)


def masked(row):
    return {"input_ids": row["input_ids"], "completion_mask": [int(label != -100) for label in row["labels"]]}


def test_ids_and_labels_are_those_of_the_row(ready, row):
    prepared = ready([row, masked(row)])
    assert [dict(each) for each in prepared.train] == [{key: row[key] for key in ("input_ids", "labels")}] * 2
    account = prepared.ledger.splits["train"][0]
    assert (account.kept, account.tokens, dict(account.noted)) == (
        2,
        2 * len(row["input_ids"]),
        {"tokens of its own": 2},
    )
    assert prepared.ledger.stops == {"<|im_end|>": 2}


def test_a_preview_shows_what_each_token_spells(ready, row, tmp_path):
    ready([row])
    source = {"path": str(tmp_path / "rows.jsonl")}
    shown = sftplug.preview({"model": {"build": TINY}, "data": {"train": source}}, 1).rows[0]
    assert "".join(token.text for token in shown.tokens) == TEXT
    assert "".join(token.text for token in shown.tokens if token.weight) == "Boil it: é 🌊 ﬁ.<|im_end|>"
    assert {token.role for token in shown.tokens} == {"document"}
    assert shown.notes == (
        "its tokens are given by the row, with what is trained of them: sftplug vouches for neither",
    )


def test_rows_without_labels_are_trained_whole_where_the_masking_says_so(ready, row):
    ids = {"input_ids": row["input_ids"]}
    assert ready([ids], masking="all").train[0]["labels"] == row["input_ids"]
    with pytest.raises(DataError, match=r"does not say which of them are trained.*`masking: all` trains every one"):
        ready([ids])


def test_a_masking_that_contradicts_the_row_or_asks_for_turns_is_refused(ready, row):
    with pytest.raises(DataError, match=r"the masking trains others too. `masking: assistant` trains those"):
        ready([row], masking="all")
    for masking in ("last_assistant", ["assistant", {"reasoning": "mask"}], ["assistant", {"regex": "Boil"}]):
        with pytest.raises(DataError, match="asks who wrote a token, or what part of a turn it is"):
            ready([row], masking=masking)


def test_a_masking_that_looks_at_the_text_is_obeyed(ready, row):
    prepared = ready([row], masking=["assistant", {"regex": {"pattern": "Boil", "role": None}}])
    labels = prepared.train[0]["labels"]
    assert prepared.tokenizer.decode([label for label in labels if label != -100]) == " it: é 🌊 ﬁ.<|im_end|>"


def test_an_id_that_the_tokenizer_lacks_is_refused_with_its_place(ready, row):
    with pytest.raises(DataError, match=r"token 1 has the id 70000, which the tokenizer of this model does not have"):
        ready([row, {"input_ids": [5, 70000], "labels": [5, 70000]}])


def test_long_rows_are_cut_with_their_labels(ready, row):
    limit = len(row["input_ids"]) - 6
    cut = ready([row], data={"max_length": limit, "too_long": "truncate"}).train[0]
    assert (cut["input_ids"], cut["labels"]) == (row["input_ids"][:limit], row["labels"][:limit])
    chunks = ready([row], data={"max_length": limit, "too_long": {"chunks": 2}, "max_loss": 1.0}).train
    assert chunks[0]["input_ids"] + chunks[1]["input_ids"][2:] == row["input_ids"]
    assert chunks[0]["labels"] + chunks[1]["labels"][2:] == row["labels"]
    with pytest.raises(DataError, match=r"no turns to part it at: `data.too_long: chunks`"):
        ready([row], data={"max_length": limit, "too_long": "split_at_turns"})


def test_rows_of_tokens_are_packed_among_others(ready, row):
    packed = ready([row] * 3, data={"max_length": 256, "packing": "rows"})
    assert packed.train[0]["seq_lengths"] == [len(row["input_ids"])] * 3
    assert packed.train[0]["labels"] == row["labels"] * 3


def test_padding_is_left_out(row):
    left = {
        "input_ids": [0, 0, *row["input_ids"], 0],
        "labels": [-100, -100, *row["labels"], -100],
        "attention_mask": [0, 0, *row["attention_mask"], 0],
    }
    assert Tokenized().to_conversation(left) == Tokenized().to_conversation(row)


def test_what_all_columns_train_is_trained():
    said = {"labels": [1, 2, -100, 4], "assistant_masks": [1, 0, 1, 1], "loss_mask": [True, True, True, False]}
    tokens = RowTokens((1, 2, 3, 4), (True, False, False, False))
    made = Tokenized().to_conversation({"input_ids": [1, 2, 3, 4], **said})
    assert made == Conversation((Message("document"),), plain=True, tokens=tokens)
    assert Tokenized(labels=None, masks=()).to_conversation({"input_ids": [1], **said}).tokens.trained is None


BAD = {
    "labels: is shifted by one: each label stands one place before its id": {"labels": [6, 7, -100]},
    "labels: is shifted by one: each label stands one place behind its id": {"labels": [-100, 5, 6]},
    "labels[1]: is 9, and the id there 6: a label is its id, or -100": {"labels": [5, 9, 7]},
    "labels: has 2 entries, and there are 3 ids": {"labels": [5, 6]},
    "labels[0]: must be a whole number, not null": {"labels": [None, 6, 7]},
    "input_ids[0]: must be a whole number, not a list. Where the row is a batch, write a row for each": {
        "input_ids": [[5, 6, 7]]
    },
    "input_ids[0]: is -1, and no token has such an id": {"input_ids": [-1, 6, 7]},
    "input_ids: must be a list of whole numbers, not text": {"input_ids": '"a"'},
    "input_ids: holds no token": {"input_ids": []},
    "loss_mask[1]: must be 0 or 1, not 0.5": {"loss_mask": [0, 0.5, 1]},
    "attention_mask: hides tokens between others": {"attention_mask": [1, 0, 1]},
    "attention_mask: leaves out tokens that are trained": {"attention_mask": [1, 1, 0], "labels": [5, 6, 7]},
    "position_ids: do not count from 0 on, so the row holds several documents": {"position_ids": [0, 1, 0]},
    "seq_lengths: are 2 lengths, so the row holds several documents": {"seq_lengths": [2, 1]},
}


@pytest.mark.parametrize("said", BAD)
def test_a_row_that_does_not_fit_is_refused_by_name(said):
    assert refused({"input_ids": [5, 6, 7], **BAD[said]}).startswith(said)


def test_tokens_of_a_format_of_ones_own_are_checked():
    from sftplug.data.convert import checked

    for wrong in (
        Conversation((Message("user", "Hi."),), tokens=RowTokens((1,))),
        Conversation((Message("document"),), plain=True, tokens=RowTokens((1, 2), (True,))),
    ):
        with pytest.raises(RowError, match="tokens: "):
            checked(wrong)
