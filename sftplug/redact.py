"""Leave secrets out of what is kept or shown: of logs, of the folder of a run, of model cards and reports."""

from __future__ import annotations

import logging
import re
import traceback
import warnings
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

HIDDEN = "(not kept)"
_SECRET = (
    r"(?:hub|hf|access|auth|api|session|sas|refresh|bearer|id|private|secret|security|wandb|github)_?token"
    r"|(?:api|access|secret|private|account|auth|encryption|signing|subscription)_?key(?:_id)?"
    r"|password|passwd|passphrase|secret|credentials?"
)
# Not every token is one: `pad_token` and its like are text.
_NAMED = re.compile(rf"(?i)^token$|(?:^|[_-])(?:{_SECRET})$")
_GONE = rf"(?!{re.escape(HIDDEN)})"
"""What was left out already is no secret."""
_URL = re.compile(r"(?<=://)(?P<secret>[^/@\s]+@)")
"""User and password."""
_PATTERNS = (
    # What stands in the query of a URL.
    re.compile(
        r"(?i)[?&](?:[\w-]*token|[\w-]*signature|sig|[\w-]*credential|[\w-]*secret|(?:api|access)?[_-]?key|password)="
        rf"{_GONE}(?P<secret>[^&#\s'\"]+)"
    ),
    # What is set, as in `hub_token=…` and `export WANDB_API_KEY=…`; and what a printed mapping holds.
    re.compile(rf"(?i)\b(?:\w+_)?(?:{_SECRET})={_GONE}(?P<secret>[^\s&'\",;)\]}}]+)"),
    re.compile(
        rf"(?i)(?P<open>['\"])(?:(?:\w+_)?(?:{_SECRET})|token)(?P=open)\s*:\s*(?P<quote>['\"])"
        rf"{_GONE}(?P<secret>(?:(?!(?P=quote)).)+)"
    ),
    re.compile(r"(?i)\b(?:bearer|basic)\s+(?P<secret>[A-Za-z0-9._~+/-]{16,}=*)"),
    # As those who give them out spell them: Hugging Face, GitHub, GitLab, OpenAI and Anthropic, Weights & Biases, AWS,
    # Google, Slack; and JSON Web Tokens.
    re.compile(
        r"\b(?P<secret>(?:hf|api_org)_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}"
        r"|sk-[A-Za-z0-9_-]{20,}|wandb_v1_\w{20,}|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[\w-]{35}|xox[abpr]-[A-Za-z0-9-]{10,}"
        r"|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,})"
    ),
)


def redact(text: str) -> str:
    """Return `text` without passwords in URLs, without what is set under a secret's name or spelled like one."""
    text = _URL.sub("", text)
    for pattern in _PATTERNS:
        text = pattern.sub(_hidden, text)
    return text


def _hidden(found: re.Match[str]) -> str:
    at = found.start()
    return found[0][: found.start("secret") - at] + HIDDEN + found[0][found.end("secret") - at :]


def blanked(text: str) -> str:
    """Return `text` with a dot in the place of each character of a secret, so that all others stay where they are."""
    for pattern in (_URL, *_PATTERNS):
        for start, end in [found.span("secret") for found in pattern.finditer(text)]:
            text = text[:start] + "•" * (end - start) + text[end:]
    return text


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


# --- what is logged ---------------------------------------------------------------------------------------------------


def redact_logs() -> None:
    """Leave secrets out of whatever this process logs, the libraries beneath included, and out of its warnings."""
    if getattr(logging.getLogRecordFactory(), "redacts", False):
        return
    logging.setLogRecordFactory(_redacting(logging.getLogRecordFactory()))
    plain = warnings.formatwarning
    warnings.formatwarning = lambda *args, **kwargs: redact(plain(*args, **kwargs))


def _redacting(make: Any) -> Any:
    """Return `make` for records whose text is final, and free of secrets."""

    def record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        made: logging.LogRecord = make(*args, **kwargs)
        with suppress(TypeError, ValueError, KeyError):  # a wrong format is logging's own business
            made.msg, made.args = redact(made.getMessage()), ()
        if made.exc_info and made.exc_info[0] is not None:
            made.exc_text = redact("".join(traceback.format_exception(*made.exc_info)).rstrip("\n"))
        return made

    record.redacts = True  # type: ignore[attr-defined]
    return record
