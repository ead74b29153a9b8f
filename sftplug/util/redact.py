"""Leave secrets out of what is kept or shown: of logs, of the folder of a run, of model cards and reports."""

from __future__ import annotations

import logging
import os
import re
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any

HIDDEN = "(not kept)"
_WORD = r"pass(?:word|wd|phrase|code)|pwd|secret|credentials?"
"""What makes any name that ends with it one of a secret."""
_SECRET = (
    r"(?:hub|hf|access|auth|api|session|sas|refresh|bearer|id|private|secret|security|wandb|github|bot|client)_?token"
    r"|(?:api|access|secret|private|account|auth|encryption|signing|subscription|license|master)_?key(?:_?id)?"
    rf"|auth(?:orization)?|cookie|signature|connection_?string|jwt|\w*(?:{_WORD})"
)
# Not every token is one: `pad_token` and its like are text.
_NAMED = re.compile(rf"(?i)^token$|(?:^|[_-])(?:{_SECRET})$")
_IN_QUERY = re.compile(
    r"(?i)(?:token|signature|credential|hmac|ticket|session(?:_?id)?|pass|key(?:[_-]?id)?)$"
    r"|^(?:sig|sign|sid|code|auth|otp|pin)$|^key-pair-id$"
)
"""What a secret is called in the query of a URL, beside its names elsewhere; single words say enough there."""
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_GONE = rf"(?!{re.escape(HIDDEN)})"
"""What was left out already is not a secret."""
_URLS = (
    # User and password. Passwords hold an @, or else, after a colon that opens no port, a slash or question mark.
    re.compile(r"(?<=//)(?P<secret>[^/?#\s'\"<>]{0,300}@)"),
    re.compile(r"(?<=://)(?P<secret>[^/?#@:\s'\"<>]{0,100}:(?!\d{1,5}[/?#])[^\s'\"<>@]{0,300}@)"),
)
# Every word of these begins where no other does and is bounded, so that the time grows with the text and no faster.
_SET = re.compile(
    r"(?<![\w-])(?P<name>[\w-]{1,64})(?P<close>['\"]?)[ \t]{0,3}(?P<sign>=|:(?=[ \t'\"]))[ \t]{0,3}"
    # Looked at and not taken: the value may be a URL, which has names and values in it.
    rf"(?=(?P<quote>['\"]){_GONE}(?P<inside>(?:\\.|[^\n'\"\\]){{0,4000}})|{_GONE}(?P<word>[^\s&'\",;)\]}}<>#]{{1,4000}}))"
)
"""``name=value``, ``name: value``, ``'name': 'value'``, and ``?name=value`` in a URL."""
_PLAIN = re.compile(rf"(?i)(?:none|null|true|false|\d{{1,6}}|(?:bearer|basic|token|digest) {re.escape(HIDDEN)})$")
"""Values that tell nothing, or nothing any more."""
_PATTERNS = (
    # Headers.
    re.compile(
        r"(?i)(?<![\w-])(?:proxy-)?authorization['\"]?[ \t]{0,3}[:=][ \t]{0,3}['\"]?(?:(?:bearer|basic|token|digest) )?"
        rf"{_GONE}(?!\w{{1,9}} \(not)(?P<secret>[^\s'\",]{{4,}})"
    ),
    re.compile(
        r"(?i)(?<![\w-])x-[\w-]{0,40}(?:key|token|secret|auth)['\"]?[ \t]{0,3}[:=][ \t]{0,3}['\"]?"
        rf"{_GONE}(?P<secret>[^\s'\",&]+)"
    ),
    re.compile(
        rf"(?i)(?<![\w-])(?:set-)?cookie['\"]?[ \t]{{0,3}}:[ \t]{{0,3}}['\"]?{_GONE}(?P<secret>[^\s'\"][^\n'\"]*)"
    ),
    re.compile(r"(?i)\b(?:bearer|basic)[ \t]{1,3}(?P<secret>[A-Za-z0-9._~+/-]{16,}=*)"),
    re.compile(rf"-----BEGIN [A-Z ]{{0,30}}PRIVATE KEY-----{_GONE}(?P<secret>[^-]+)"),
    # As those who give them out spell them: Hugging Face, GitHub, GitLab, OpenAI and Anthropic, Weights & Biases, AWS,
    # Google, Slack, Stripe, Groq, Replicate, xAI, NVIDIA, npm, PyPI, Docker, Grafana, Vault, SendGrid, Atlassian; and
    # JSON Web Tokens.
    re.compile(
        r"\b(?P<secret>(?:hf|api_org)_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}"
        r"|sk-[A-Za-z0-9_-]{20,}|wandb_v1_\w{20,}|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[\w-]{35}|ya29\.[\w-]{20,}"
        r"|xox[abeprs]-[A-Za-z0-9-]{10,}|xapp-[A-Za-z0-9-]{20,}|(?:sk|pk|rk)_(?:live|test)_\w{16,}|whsec_\w{16,}"
        r"|(?:gsk|r8|npm|glsa|dckr_pat|dop_v1)_[\w-]{20,}|(?:xai|nvapi|pypi)-[\w-]{20,}|hvs\.[\w-]{20,}"
        r"|SG\.[\w-]{16,80}\.[\w-]{16,}|ATATT[\w=-]{20,}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,})"
    ),
)
_LONG_ENOUGH = 8
"""Characters of a variable of the environment that is looked for: a shorter one may be any word."""


def redact(text: str) -> str:
    """Return `text` without passwords in URLs, without what is set under a secret's name or spelled like one.

    Nor is the value of a variable of the environment kept whose name says that it is secret.
    """
    for secret in _of_environment():
        text = text.replace(secret, HIDDEN)
    for pattern in _URLS:
        text = pattern.sub("", text)
    return _replaced(text, lambda start, end: HIDDEN)


def blanked(text: str) -> str:
    """Return `text` with a dot in the place of each character of a secret, so that all others stay where they are."""
    for secret in _of_environment():
        text = text.replace(secret, _DOT * len(secret))
    for pattern in _URLS:
        text = pattern.sub(lambda found: _DOT * len(found[0]), text)
    return _replaced(text, lambda start, end: _DOT * (end - start))


_DOT = "•"


def _replaced(text: str, instead: Callable[[int, int], str]) -> str:
    """Return `text` with what `instead` returns for start and end of each secret in its place."""
    for spans in (_spelled, _set):
        rest, parts = 0, list[str]()
        for start, end in spans(text):
            if start >= rest:
                parts += [text[rest:start], instead(start, end)]
                rest = end
        text = "".join([*parts, text[rest:]])
    return text


def _spelled(text: str) -> list[tuple[int, int]]:
    """Return start and end of what is spelled like a secret or stands where one does."""
    return sorted(found.span("secret") for pattern in _PATTERNS for found in pattern.finditer(text))


def _set(text: str) -> Iterator[tuple[int, int]]:
    """Yield start and end of each value that is set under a secret's name."""
    for found in _SET.finditer(text):
        group = "word" if found["quote"] is None else "inside"
        value = found[group]
        if value and not _PLAIN.match(value) and _is_set_secret(found, text):
            yield found.span(group)


def _is_set_secret(found: re.Match[str], text: str) -> bool:
    name = found["name"]
    if found["sign"] == "=":
        in_query = found.start() > 0 and text[found.start() - 1] in "?&;#"
        return is_secret_name(name) or (in_query and (bool(_IN_QUERY.search(name)) or _is_drawn(found["word"] or "")))
    if not is_secret_name(name):
        return False
    if found["close"]:  # of a printed mapping
        return True
    # A line of YAML, which a control token may end; in a sentence ("the password: field") only what is not a word.
    end = found.end("inside" if found["word"] is None else "word")
    before, after = text[max(found.start() - _LINE, 0) : found.start()], text[end : end + _LINE].lstrip(" \t'\"")
    is_line = not before.rpartition("\n")[2].strip(" \t-'\"") and after[:1] in ("", "\n", "<")
    return is_line or any(map(str.isdigit, found["word"] or found["inside"]))


_LINE = 200
"""Characters of a line that are looked at, to either side."""


def _is_drawn(value: str) -> bool:
    """Whether a value looks drawn by lot: long, with small and capital letters and digits."""
    kinds = (str.islower, str.isupper, str.isdigit)
    plain = value.replace("%", "").replace("+", "").replace("~", "").replace("-", "_").rstrip("=")
    return len(value) >= 20 and plain.isidentifier() and all(any(map(kind, value)) for kind in kinds)


def _of_environment() -> list[str]:
    """Return the secret values of the environment, the longest first."""
    found = {value for name, value in os.environ.items() if len(value) >= _LONG_ENOUGH and is_secret_name(name)}
    return sorted(found, key=len, reverse=True)


@lru_cache(maxsize=10_000)
def is_secret_name(name: str) -> bool:
    """Whether a name says that its value is secret: ``hub_token``, ``apiKey``, ``AWS_SECRET_ACCESS_KEY``."""
    return name not in ("PWD", "OLDPWD") and bool(_NAMED.search(_CAMEL.sub("_", name)))


def without_secrets(value: Any, key: str = "") -> Any:
    """Return plain data with every text redacted, and without the values whose names say that they are secret."""
    if isinstance(value, Mapping):
        return {redact(name) if isinstance(name, str) else name: _item(name, item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(item) for item in value]
    if isinstance(value, str):
        return HIDDEN if is_secret_name(key) else redact(value)
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
