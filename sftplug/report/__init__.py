"""What came of runs, read from their folders: as one page of HTML, or in short as text."""

from sftplug.report.collect import Report, collect
from sftplug.report.render import to_html

__all__ = ["Report", "collect", "to_html"]
