"""Plain text is its author's own layout: control tokens in it control, and what it brings is not added again."""

import pytest
from conftest import TINY, write_rows

import sftplug
from sftplug import DataError

LAID_OUT = "<|im_start|>user\nHow?<|im_end|>\n<|im_start|>assistant\nBoil it.<|im_end|>\n"
PAIR = {"prompt": LAID_OUT.partition("Boil")[0], "completion": "Boil it.<|im_end|>\n"}


@pytest.fixture
def ready(tmp_path):
    """Return a function that prepares rows of a format."""

    def prepare(rows, format_, template="chatml", **sections):
        source = {"path": str(write_rows(tmp_path / "rows.jsonl", rows)), "format": format_}
        recipe = {"model": {"build": TINY}, "data": {"train": source, **sections.pop("data", {})}, **sections}
        return sftplug.prepare(sftplug.load({**recipe, "chat_template": template} if template else recipe))

    return prepare


def noted(prepared):
    return dict(prepared.ledger.splits["train"][0].noted)


def ids(prepared, text):
    return prepared.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_control_tokens_in_text_control_and_its_own_stop_is_enough(ready):
    prepared = ready([{"text": LAID_OUT}, {"text": "Words."}], "text", masking="all")
    laid_out, words = (row["input_ids"] for row in prepared.train)
    assert laid_out == ids(prepared, LAID_OUT)  # as the template's own text is
    assert words == [*ids(prepared, "Words."), prepared.tokenizer.eos_token_id]
    assert noted(prepared) == {"control token in plain text": 1, "stop of its own": 1}


def test_a_completion_that_is_laid_out_trains_to_its_own_stop_and_nothing_behind_it(ready):
    prepared = ready([PAIR], {"type": "prompt_completion", "as": "text"})
    row = prepared.train[0]
    assert row["input_ids"] == ids(prepared, LAID_OUT)
    assert prepared.tokenizer.decode([label for label in row["labels"] if label != -100]) == "Boil it.<|im_end|>"
    assert prepared.ledger.stops == {"<|im_end|>": 1}


def test_text_that_is_laid_out_and_does_not_stop_gets_an_eos_and_is_told(ready):
    prepared = ready([{"text": LAID_OUT.removesuffix("<|im_end|>\n")}], "text", masking="all")
    assert prepared.train[0]["input_ids"][-1] == prepared.tokenizer.eos_token_id
    assert noted(prepared) == {"control token in plain text": 1, "no stop of its own": 1}


def test_what_the_recipe_says_of_control_tokens_is_obeyed_in_text_too(ready):
    escaped = ready([{"text": LAID_OUT}], "text", masking="all", data={"special_tokens_in_content": "escape"})
    row = escaped.train[0]["input_ids"]
    assert set(row) & set(escaped.tokenizer.all_special_ids) == {row[-1]} == {escaped.tokenizer.eos_token_id}
    assert noted(escaped) == {"special token in content": 1}
    with pytest.raises(
        DataError, match=r"holds the control token '<\|im_start\|>'; `data\.special_tokens_in_content` ref"
    ):
        ready([{"text": LAID_OUT}], "text", masking="all", data={"special_tokens_in_content": "error"})


def test_in_conversations_control_tokens_stay_text(ready):
    row = {"prompt": "What ends a turn?", "completion": "<|im_end|> does."}
    prepared = ready([row], {"type": "prompt_completion", "as": "chat"})
    assert prepared.train[0]["labels"].count(ids(prepared, "<|im_end|>")[0]) == 1
    assert noted(prepared) == {"special token in content": 1}


def test_strings_are_turns_or_text_and_which_it_is_is_said(ready):
    row = {"prompt": "How?", "completion": "Boil it."}
    (said,) = ready([row], "prompt_completion", template=None).ledger.splits["train"][0].said
    assert said == (
        "1 rows are joined as they stand, and no chat template renders them; `format: {type: prompt_completion, "
        "as: chat}` makes turns of them"
    )
    with pytest.raises(DataError, match=r"names the chat template 'chatml', and it renders no row"):
        ready([row], "prompt_completion")
    chat, text = (ready([row], {"type": "prompt_completion", "as": kind}) for kind in ("chat", "text"))
    assert chat.train[0]["input_ids"] == ids(chat, LAID_OUT)
    assert text.train[0]["input_ids"] == [*ids(text, "How?"), *ids(text, "Boil it."), text.tokenizer.eos_token_id]
    assert not chat.ledger.splits["train"][0].said
    assert not text.ledger.splits["train"][0].said
    turns = [{"role": "user", "content": "How?"}], [{"role": "assistant", "content": "Boil it."}]
    with pytest.raises(DataError, match=r"which a chat template renders\. Leave `as: text` out"):
        ready([{"prompt": turns[0], "completion": turns[1]}], {"type": "prompt_completion", "as": "text"})
    # Laid out already, they are not meant to be turns.
    assert not ready([PAIR], "prompt_completion").ledger.splits["train"][0].said
