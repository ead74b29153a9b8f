"""Render a chat template with provenance, and find what the model itself must produce."""

from sftplug.data.render.check import Finding
from sftplug.data.render.parts import Runs
from sftplug.data.render.rendered import Rendered, Span
from sftplug.data.render.template import Template, compile_template

__all__ = ["Finding", "Rendered", "Runs", "Span", "Template", "compile_template"]
