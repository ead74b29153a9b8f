"""Chat templates: how a conversation becomes text. Each is a Jinja file beside this one."""

import sftplug
from sftplug_templates.files import ChatML, File, Llama3, Plain, Tokenizer


@sftplug.hookimpl
def sftplug_chat_templates() -> list[type[sftplug.ChatTemplate]]:
    """Offer the built-in chat templates."""
    return [Tokenizer, ChatML, Llama3, Plain, File]
