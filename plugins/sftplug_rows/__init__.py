"""Row processors: what becomes of rows before a format reads them."""

import sftplug
from sftplug_rows.choose import Filter, Sample
from sftplug_rows.columns import Rename, Replace
from sftplug_rows.dedupe import Dedupe
from sftplug_rows.held_out import Decontaminate
from sftplug_rows.margin import ScoreMargin
from sftplug_rows.trees import MessageTrees


@sftplug.hookimpl
def sftplug_row_processors() -> list[type[sftplug.RowProcessor]]:
    """Offer the built-in row processors."""
    return [Decontaminate, Dedupe, Filter, MessageTrees, Rename, Replace, Sample, ScoreMargin]
