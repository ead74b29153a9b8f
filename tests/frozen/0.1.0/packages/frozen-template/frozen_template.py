from pathlib import Path
from typing import Any, Literal

from sftplug import ChatTemplate, hookimpl


class FrozenTemplate(ChatTemplate):
    """Zephyr's template: `<|user|>`, what is said, EOS; a base model needs no other control token for it."""

    type: Literal["frozen_template"] = "frozen_template"

    def source(self, tokenizer: Any) -> str:
        return Path(__file__).with_suffix(".jinja").read_text(encoding="utf-8")


@hookimpl
def sftplug_chat_templates() -> list[type[ChatTemplate]]:
    return [FrozenTemplate]
