"""Eyes for masks: which tokens of which rows are trained, and how much."""

from sftplug.previewing.collect import Collector, PreviewRow, PreviewToken
from sftplug.previewing.page import legend, row_html, to_fragment, to_html

__all__ = ["Collector", "PreviewRow", "PreviewToken", "legend", "row_html", "to_fragment", "to_html"]
