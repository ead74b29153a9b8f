"""Leave secrets out of what is kept or shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "(not kept)"
# Not every token is one: `pad_token` and its like are text.
_NAMED = re.compile(r"^token$|(hub|access|auth|api)_(token|key)$|password$|secret$")
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
_QUERY = re.compile(
    r"(?i)([?&](?:[\w-]*token|[\w-]*signature|sig|[\w-]*credential|[\w-]*secret|(?:api|access)?[_-]?key|password)=)"
    r"[^&#\s'\"]+"
)
# As those who give them out spell them: Hugging Face, GitHub, OpenAI and Anthropic, Weights & Biases, AWS, Slack.
_SPELLED = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{8,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|sk-[A-Za-z0-9_-]{20,}"
    r"|wandb_v1_\w{20,}|AKIA[A-Z0-9]{16}|xox[abpr]-[A-Za-z0-9-]{10,})"
)


def redact(text: str) -> str:
    """Return `text` without passwords in URLs, and without what is spelled like an access token."""
    return _SPELLED.sub(HIDDEN, _QUERY.sub(rf"\g<1>{HIDDEN}", _CREDENTIALS.sub("", text)))


def without_secrets(value: Any, key: str = "") -> Any:
    """Return plain data with every text redacted, and without the values whose names say that they are secret."""
    if isinstance(value, Mapping):
        return {redact(name) if isinstance(name, str) else name: _item(name, item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(item) for item in value]
    if isinstance(value, str):
        return HIDDEN if _NAMED.search(key) else redact(value)
    return value


def _item(name: object, item: Any) -> Any:
    return without_secrets(item, name if isinstance(name, str) else "")
