from typing import Any, Literal

from sftplug import Dropped, Field, Row, RowError, RowProcessor, hookimpl


class EachAnswer(RowProcessor):
    """Make a row of each answer to a question: `{"question": "One?", "answer": ["Two.", "2"]}`."""

    type: Literal["each_answer"] = "each_answer"
    most: int = Field(4, gt=0)
    """So many answers of each question are taken, from the first."""

    def process(self, row: Row) -> list[dict[str, Any]] | Dropped:
        if not isinstance(answers := row.data.get("answer"), list):
            raise RowError("answer", "must be a list of answers")
        return [{**row.data, "answer": text} for text in answers[: self.most]] or Dropped("has no answer")


@hookimpl
def sftplug_row_processors() -> list[type[RowProcessor]]:
    return [EachAnswer]
