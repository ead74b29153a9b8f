from sftplug import Dropped, Row
from sftplug.testing import check_row_processor

from each_answer import EachAnswer

ROW = {"question": "One?", "answer": ["Two.", "2"]}


def test_it_keeps_the_laws_of_row_processors() -> None:
    check_row_processor(EachAnswer, [ROW, {**ROW, "answer": []}], most=1)


def test_each_answer_becomes_a_row() -> None:
    assert EachAnswer().process(Row(ROW, "rows.jsonl:1")) == [{**ROW, "answer": "Two."}, {**ROW, "answer": "2"}]
    assert EachAnswer().process(Row({**ROW, "answer": []}, "rows.jsonl:2")) == Dropped("has no answer")
