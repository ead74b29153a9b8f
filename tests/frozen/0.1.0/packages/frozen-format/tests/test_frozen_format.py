import pytest
from sftplug import RowError
from sftplug.testing import check_format

from frozen_format import FrozenFormat

ROW = {"data": ["One?", "Two.", "Three?", "Four."]}


def test_it_keeps_the_laws_of_formats() -> None:
    check_format(FrozenFormat, [ROW])


def test_user_and_assistant_speak_in_turn() -> None:
    said = [(message.role, message.content) for message in FrozenFormat().to_conversation(ROW).messages]
    assert said == [("user", "One?"), ("assistant", "Two."), ("user", "Three?"), ("assistant", "Four.")]


def test_a_row_that_does_not_fit_is_refused_by_name() -> None:
    with pytest.raises(RowError, match="data: must be a list of texts, the user's first"):
        FrozenFormat().to_conversation({"data": "One?"})
