"""Eyes for masks: which tokens of which rows are trained, and how much."""

from sftplug.preview.collect import Collector, PreviewRow, PreviewToken
from sftplug.preview.page import legend, row_html, to_html

__all__ = ["Collector", "PreviewRow", "PreviewToken", "legend", "row_html", "to_html"]
