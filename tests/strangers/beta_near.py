import re

from sftplug import Dropped, StreamProcessor, hookimpl


class NearCopies(StreamProcessor):
    """Leave out a row whose three-word sequences are mostly those of an earlier row."""

    type: str = "beta_near"
    similar: float = 0.7

    def stream(self, rows, context):
        seen = []
        for row in rows:
            words = re.findall(r"\w+", str(row.data).lower())
            mine = {*zip(words, words[1:], words[2:])}  # noqa: B905 - the last ones have no followers
            origin = next((o for o, other in seen if len(mine & other) >= self.similar * len(mine | other)), None)
            if origin is None:
                seen.append((row.origin, mine))
                yield row
            else:
                yield Dropped(f"is nearly {origin}", row)


@hookimpl
def sftplug_row_processors():
    return [NearCopies]
