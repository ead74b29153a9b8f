"""Render a chat template with provenance, and find what the model itself must produce."""

from sftplug.data.render.check import Finding
from sftplug.data.render.rendered import Rendered, Span
from sftplug.data.render.template import Template, compile_template

__all__ = ["Finding", "Rendered", "Span", "Template", "compile_template"]
