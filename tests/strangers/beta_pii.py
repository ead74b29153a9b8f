import re

from sftplug import RowProcessor, hookimpl

MAIL = re.compile(r"[\w.+-]+@[\w-]+\.[\w.]*\w")


class Scrub(RowProcessor):
    """Put `mark` for e-mail addresses, wherever in a row they stand."""

    type: str = "beta_pii"
    mark: str = "<EMAIL>"

    def process(self, row):
        return self.scrubbed(row.data)

    def scrubbed(self, value):
        if isinstance(value, str):
            return MAIL.sub(self.mark, value)
        if isinstance(value, list):
            return [self.scrubbed(item) for item in value]
        return {key: self.scrubbed(item) for key, item in value.items()} if isinstance(value, dict) else value


@hookimpl
def sftplug_row_processors():
    return [Scrub]
