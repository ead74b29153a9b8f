"""What most rows are: turns of one text each, of which no stage has anything to tell. Found out once, for all stages.

Each stage looks for what is unusual in a row: half a character, a call, a thought, an indented line, a placeholder. To
ask that of every message at every stage would take longer than what the stages do.
"""

from __future__ import annotations

from collections.abc import Collection
from operator import attrgetter

from sftplug.data.calls_as_text import CALL_BEGINS, CALL_MARKS
from sftplug.data.render.shape import PLAIN_ROLES, is_ordinary
from sftplug.types.conversation import Conversation

Texts = dict[tuple[int, str], str]
"""Index of a message and the key of a text in it -> the text."""

_BESIDE_TEXTS = attrgetter("tool_calls", "name", "tool_call_id", "weight")
_NOTHING = ((), None, None, None)
_MARKS = ("think>", "<image>", *CALL_MARKS)
_SYSTEM = frozenset(("system", "developer"))


def plain_texts(conversation: Conversation) -> Texts | None:
    """Return every text of a plain conversation; None if a message has more than texts, or a text is unusual."""
    texts: Texts = {}
    for index, message in enumerate(conversation.messages):
        if message.tool_calls or message.name or message.tool_call_id or message.role not in PLAIN_ROLES:
            return None
        texts[index, "content"] = message.content  # type: ignore[assignment]
        if message.reasoning_content is not None:
            texts[index, "reasoning_content"] = message.reasoning_content
    return texts if all(map(is_ordinary, texts.values())) else None


def usual_texts(conversation: Conversation) -> Texts | None:
    """Return every text of a conversation of which nothing is to be told; None where somebody has to look closer."""
    if conversation.plain or conversation.weight != 1 or conversation.tools or conversation.template_kwargs:
        return None
    messages = conversation.messages
    if [*map(_BESIDE_TEXTS, messages)] != [_NOTHING] * len(messages):
        return None
    texts: Texts = {}
    for index, message in enumerate(messages):
        texts[index, "content"] = message.content  # type: ignore[assignment]
        if message.reasoning_content is not None:
            texts[index, "reasoning_content"] = message.reasoning_content
    return texts if _are_usual([message.role for message in messages]) and _say_nothing(texts.values()) else None


def _are_usual(roles: list[str]) -> bool:
    """Whether roles are known, and none but the first is the system's. What a format wrote is not checked yet."""
    return {*map(type, roles)} == {str} and PLAIN_ROLES.issuperset(roles) and _SYSTEM.isdisjoint(roles[1:])


def _say_nothing(texts: Collection[str]) -> bool:
    """Whether texts are whole, begin with no white space, and hold no thought, no call and no placeholder."""
    if {*map(type, texts)} != {str} or [text for text in texts if not text or text[0].isspace()]:
        return False
    if [text for text in texts if text[0] in CALL_BEGINS]:
        return False
    # Together, as it is the calls that take time. To look for one character first is quicker by far.
    whole = "\n".join(texts)
    if ">" in whole and any(mark in whole for mark in _MARKS):
        return False
    return not ("{" in whole and "{{" in whole) and (whole.isascii() or _is_whole(whole))


def _is_whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
