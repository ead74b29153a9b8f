"""What came of runs, read from their folders: as one page of HTML, or in short as text."""

from sftplug.reporting.collect import Found, Report, collect, find_runs
from sftplug.reporting.render import to_html

__all__ = ["Found", "Report", "collect", "find_runs", "to_html"]
