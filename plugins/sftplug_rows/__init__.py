"""Row processors: what becomes of rows before a format reads them."""

import sftplug
from sftplug_rows.choose import Filter, Sample
from sftplug_rows.columns import Rename, Replace
from sftplug_rows.dedupe import Dedupe
from sftplug_rows.held_out import Decontaminate


@sftplug.hookimpl
def sftplug_row_processors() -> list[type[sftplug.RowProcessor]]:
    """Offer the built-in row processors."""
    return [Decontaminate, Dedupe, Filter, Rename, Replace, Sample]
