"""Whose turn it is, by the names that people give to roles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from sftplug import did_you_mean

Role = Literal["system", "developer", "user", "assistant", "tool", "tool_call", "reasoning"]
"""What a name of a role may stand for; `tool_call` and `reasoning` are parts of the assistant's turn."""

ROLES: Mapping[str, str] = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function": "tool",
    "function_response": "tool",
    "tool_response": "tool",
    "tool_result": "tool",
    "ipython": "tool",
    "environment": "tool",
    "function_call": "tool_call",
    "function_calls": "tool_call",
    "tool_call": "tool_call",
    "tool_calls": "tool_call",
    "thinking": "reasoning",
    "reasoning": "reasoning",
    "thought": "reasoning",
    "document": "document",
}
_ASSISTANTS = ("gpt", "bing", "bard", "claude", "gemini", "llama", "copilot", "assist", "bot", "agent")
"""What the names of products and of parts that a model plays hold."""
_GUESSED = ("system", "developer", "user", "assistant", "tool")


def role_of(name: str, more: Mapping[str, str]) -> str | None:
    """Return what `name` stands for, by `more` before all else; None where nobody knows it."""
    return more.get(name) or ROLES.get(name) or ROLES.get(name.strip().lower())


def unknown_role(name: str, more: Mapping[str, str]) -> str:
    """Return the sentence about a name that nobody knows."""
    hint = did_you_mean(name, [*more, *ROLES])
    if "'tool'" in hint and "call" in name.lower():
        hint = ""  # `tool` is who answers a call, and is not trained
    return f"nobody knows the role '{name}'.{hint} Known: {', '.join([*more, *ROLES])}."


def guessed(name: str, before: str | None) -> str:
    """Return whose turn it probably is by a name that nobody knows; `before` is whose turn came before it."""
    if any(word in name.lower() for word in _ASSISTANTS):
        return "assistant"
    hint = did_you_mean(name.lower(), ROLES)
    meant = next((role for other, role in ROLES.items() if f"'{other}'" in hint and role in _GUESSED), None)
    return meant or ("assistant" if before == "user" else "user")
