"""What is probably not meant in a conversation that is trained all the same: told in the ledger, with counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sftplug.types.conversation import Conversation, Message

NO_TOOLS = "calls without tools"
UNDECLARED = "call to an undeclared tool"
SYSTEM_TURNS = "several system turns"
SHOWN_TWICE = "tools shown twice"
NAMES = "names not shown"
PLACEHOLDER_IMAGE = "placeholder of an image"
TRIMMED = "indentation trimmed"

Remark = tuple[str, str]
"""Kind, and a sentence."""


def once(remarks: Iterable[Remark]) -> Iterator[Remark]:
    """Yield the first remark of each kind: the ledger counts rows."""
    seen: set[str] = set()
    for kind, text in remarks:
        if kind not in seen:
            seen.add(kind)
            yield kind, text


def remarks(conversation: Conversation) -> Iterator[Remark]:
    """Yield what there is to say of a conversation before it is rendered."""
    systems = [message for message in conversation.messages if message.role in ("system", "developer")]
    if len(systems) > 1:
        yield SYSTEM_TURNS, f"the row has {len(systems)} system turns"
    yield from _calls(conversation)
    if conversation.tools and (twice := [text for text in map(_said, systems) if _shows_tools(text, conversation)]):
        yield (
            SHOWN_TWICE,
            f"a system turn ({twice[0][:40]!r} …) shows the tools, and the chat template shows them again",
        )
    for index, message in enumerate(conversation.messages):
        if "<image>" in _said(message):
            yield PLACEHOLDER_IMAGE, f"messages[{index}] holds <image>, and nothing stands in its place"


def _calls(conversation: Conversation) -> Iterator[Remark]:
    called = [call.name for message in conversation.messages for call in message.tool_calls]
    declared = set(tool_names(conversation))
    if called and not conversation.tools:
        text = "and the row declares no tools: unless a message shows them, the model calls what it never sees"
        yield NO_TOOLS, f"'{called[0]}' is called, {text}"
    elif other := [name for name in called if name not in declared]:
        yield UNDECLARED, f"'{other[0]}' is called, and is not among the tools of the row"


def tool_names(conversation: Conversation) -> Iterator[str]:
    """Yield the names of the tools that a row declares."""
    for tool in conversation.tools:
        function = tool.get("function")
        name = function.get("name") if isinstance(function, dict) else tool.get("name")
        if isinstance(name, str):
            yield name


def _shows_tools(text: str, conversation: Conversation) -> bool:
    """Whether a system turn holds the schemas of the tools that the row declares besides."""
    names = [*tool_names(conversation)]
    return bool(names) and all(name in text for name in names) and "{" in text and '"parameters"' in text


def _said(message: Message) -> str:
    content = message.content
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(str(part.get("text", "")) for part in content)


def hidden(conversation: Conversation, text: str) -> Iterator[Remark]:
    """Yield what messages say and `text`, the row as it is rendered, does not show, though nothing is dropped."""
    for index, message in enumerate(conversation.messages):
        if not message.name and not _begins_with_space(message.content):
            continue  # as nearly all of them
        if message.name and message.role != "tool" and message.name not in text:
            yield NAMES, f"messages[{index}].name is '{message.name}', and the chat template does not show it"
        line = _indented(message)
        if line and line not in text:
            yield TRIMMED, f"messages[{index}] begins with an indented line, and the chat template trims it"


def _begins_with_space(content: object) -> bool:
    return type(content) is str and content[:1].isspace()


def _indented(message: Message) -> str:
    """Return the first line of a reply where it begins with white space that means something; else nothing."""
    content = message.content
    if message.role != "assistant" or not isinstance(content, str) or not _begins_with_space(content):
        return ""
    lead = content[: len(content) - len(content.lstrip())].rpartition("\n")[2]
    return lead + content.lstrip().partition("\n")[0] if lead else ""
