"""Where each chat template's source comes from, and what it needs of the tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from sftplug import ChatTemplate, Field, InputPath, ModelError, read_text

if TYPE_CHECKING:
    from sftplug import Recipe


class Tokenizer(ChatTemplate):
    """The model's own chat template, as it stands in its tokenizer."""

    type: Literal["tokenizer"] = "tokenizer"

    def source(self, tokenizer: Any) -> str:
        """Return the tokenizer's template. Raises ModelError for a base model, which has none."""
        if not tokenizer.chat_template:
            raise ModelError(
                "the model's tokenizer has no chat template, as base models do not. Choose one: "
                "`chat_template: chatml`, `llama3`, `plain`, or `{type: file, path: my.jinja}`."
            )
        if isinstance(tokenizer.chat_template, dict):
            names = ", ".join(tokenizer.chat_template)
            raise ModelError(f"the tokenizer has several chat templates ({names}); write the one you want to a file.")
        return str(tokenizer.chat_template)


class _Shipped(ChatTemplate):
    """A template that is shipped with sftplug."""

    needs: ClassVar[tuple[str, ...]] = ()
    """Control tokens that the template writes."""

    def source(self, tokenizer: Any) -> str:
        """Return the template. Raises ModelError when the tokenizer lacks one of its control tokens."""
        known = tokenizer.get_added_vocab()
        lacking = [token for token in self.needs if token not in known]
        if lacking:
            raise ModelError(
                f"the chat template '{self.type}' writes {', '.join(lacking)}, which the model's tokenizer would cut "
                "into pieces. Choose `chat_template: plain`, or a model that has these tokens, or add them: "
                f"`model.add_tokens: {json.dumps(lacking)}`."
            )
        if not tokenizer.eos_token:
            raise ModelError(f"the chat template '{self.type}' needs an EOS token, and the model's tokenizer has none.")
        return (Path(__file__).parent / f"{self.type}.jinja").read_text(encoding="utf-8")


class ChatML(_Shipped):
    """ChatML: ``<|im_start|>role … <|im_end|>``, with tool calls and reasoning in tags."""

    type: Literal["chatml"] = "chatml"
    needs: ClassVar[tuple[str, ...]] = ("<|im_start|>", "<|im_end|>")


class Llama3(_Shipped):
    """Llama 3: ``<|start_header_id|>role<|end_header_id|> … <|eot_id|>``, with tool calls as JSON."""

    type: Literal["llama3"] = "llama3"
    needs: ClassVar[tuple[str, ...]] = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


class Plain(_Shipped):
    """Readable text without control tokens but EOS: ``### User: …``; for any base model."""

    type: Literal["plain"] = "plain"


class File(ChatTemplate):
    """A Jinja file of your own."""

    type: Literal["file"] = "file"
    path: InputPath = Field(examples=["template.jinja"])
    """The file; relative to the recipe that names it."""
    shorthand: ClassVar[str] = "path"

    def check(self, recipe: Recipe) -> Iterable[str]:
        """Say so when the file is not there."""
        if not Path(self.path).is_file():
            yield f"the file {self.path} does not exist."

    def source(self, tokenizer: Any) -> str:
        """Return the text of the file. Raises DataError when it cannot be read."""
        return read_text(self.path)
