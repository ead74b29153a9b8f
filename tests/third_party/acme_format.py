from sftplug import Conversation, DatasetFormat, Message, Recognized, hookimpl


class Dialogue(DatasetFormat):
    """Rows like `{"dialogue": ["a question", "its answer", ...]}`."""

    type: str = "dialogue"

    @classmethod
    def recognizes(cls, rows):
        return Recognized("column dialogue") if all("dialogue" in row for row in rows) else "no column `dialogue`"

    def to_conversation(self, row):
        return Conversation(tuple(Message(("user", "assistant")[i % 2], t) for i, t in enumerate(row["dialogue"])))


@hookimpl
def sftplug_dataset_formats():
    return [Dialogue]
