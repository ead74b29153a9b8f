"""The trained spans of a template, for test suites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sftplug.data.render import compile_template
from sftplug.data.render.rendered import raise_on_errors
from sftplug.errors import MaskError, TemplateError


def assistant_spans(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None = None,
    **template_kwargs: Any,
) -> tuple[str, list[tuple[int, int]]]:
    """Return the text that `template` renders and the character spans that are trained, in message order.

    A trained span is exactly what the model itself must produce at inference: from the end of the generation prompt
    through the stop token. `template` is Jinja source, `template_kwargs` what it is called with besides messages and
    tools (``bos_token``, ``eos_token``, ``enable_thinking`` …). Where the text differs from inference, or has no
    stop, the spans follow the definition all the same.

    Raises MaskError when the template refuses the conversation, or when the spans cannot be vouched for.
    """
    try:
        compiled = compile_template(template)
        rendered = compiled.analyse(messages, tools, **template_kwargs)
        plain = compiled.text(messages, tools, **template_kwargs)
    except TemplateError as error:
        raise MaskError(str(error)) from error
    raise_on_errors(rendered, compiled.name)
    if plain != rendered.text:
        raise MaskError(f"chat template '{compiled.name}' renders differently when its parts are told apart")
    return rendered.text, [(span.start, span.end) for span in rendered.spans]
