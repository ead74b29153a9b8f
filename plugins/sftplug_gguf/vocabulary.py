"""The tokenizer as llama.cpp has it: a list of tokens, merges or scores, and the name of how text is split."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sftplug import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""Types of a token, by the GGUF specification."""


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF file holds of a tokenizer."""

    model: str
    """``gpt2`` is a byte-level BPE, ``llama`` one of SentencePiece's."""
    pre: str
    """By what text is split before: llama.cpp knows regular expressions by names, and no others."""
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    space_prefix: bool = False
    """Whether a space is put before a text."""


def vocabulary(tokenizer: PreTrainedTokenizerBase, size: int) -> Vocabulary:
    """Return what a tokenizer is, with `size` tokens: the model has so many rows of embeddings.

    Raises ModelError for a tokenizer that llama.cpp cannot be shown to have.
    """
    written = json.loads(_backend(tokenizer).to_str())
    model = written["model"]
    if model["type"] != "BPE":
        raise ModelError(
            f"{_CANNOT} a tokenizer of the type {model['type']}; byte-level BPE and SentencePiece's BPE are."
        )
    tokens, types = _tokens(written, size)
    merges = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in model["merges"]]
    if _is_sentencepiece(written):
        return Vocabulary("llama", "default", tokens, types, (), _scores(tokens, merges), _puts_space_before(written))
    return Vocabulary("gpt2", _pre(written), tokens, types, tuple(map(" ".join, merges)))


_CANNOT = "GGUF cannot be written with"


def _backend(tokenizer: PreTrainedTokenizerBase) -> Any:
    if not tokenizer.is_fast:
        raise ModelError(f"{_CANNOT} a tokenizer that has no tokenizer.json ({type(tokenizer).__name__}).")
    return getattr(tokenizer, "backend_tokenizer")  # noqa: B009 - a base class does not say that it has one


def _tokens(written: Mapping[str, Any], size: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return tokens and their types by their ids; rows of embeddings without a token have one that nothing becomes."""
    tokens = [f"[PAD{index}]" for index in range(size)]
    types = [UNUSED] * size
    is_bytes = bool(written["model"].get("byte_fallback"))
    for token, index in written["model"]["vocab"].items():
        tokens[index] = token
        types[index] = BYTE if is_bytes and _is_byte(token) else NORMAL
    unknown = written["model"].get("unk_token")
    if unknown is not None and is_bytes:
        types[written["model"]["vocab"][unknown]] = UNKNOWN
    for added in written["added_tokens"]:
        if added["id"] >= size:
            raise ModelError(f"{_CANNOT} the token {added['content']!r}: its id, {added['id']}, has no embedding.")
        tokens[added["id"]] = added["content"]
        if types[added["id"]] != UNKNOWN:
            types[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    return tuple(tokens), tuple(types)


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


# --- byte-level BPE ---------------------------------------------------------------------------------------------------

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LLAMA3 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}{_TAIL}"
_QWEN2 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{_TAIL}"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_WORDS = r"[^\r\n\p{L}\p{N}]?"
_TAIL_SLASH = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN = rf"{_WORDS}{_UPPER}*{_LOWER}+|{_WORDS}{_UPPER}+{_LOWER}*|\p{{N}}{_TAIL_SLASH}"
_GPT4O = (
    rf"{_WORDS}{_UPPER}*{_LOWER}+{_CONTRACTIONS}?|{_WORDS}{_UPPER}+{_LOWER}*{_CONTRACTIONS}?"
    rf"|\p{{N}}{{1,3}}{_TAIL_SLASH}"
)
_DIGITS = r"\p{N}"

PRE = {
    ((_GPT2,), False): "gpt-2",
    ((_DIGITS, _GPT2), False): "smollm",
    ((_QWEN2,), False): "qwen2",
    ((_LLAMA3,), True): "llama-bpe",
    ((_LLAMA3,), False): "dbrx",
    ((_TEKKEN,), True): "tekken",
    ((_GPT4O,), False): "gpt-4o",
}
"""(regular expressions by which text is split one after the other, whether a whole word that is a token is taken
without merges) -> llama.cpp's name for it (``llama-vocab.cpp``)."""


def _pre(written: Mapping[str, Any]) -> str:
    splits = tuple(_splits(written["pre_tokenizer"]))
    name = PRE.get((splits, bool(written["model"].get("ignore_merges"))))
    if name is None:
        raise ModelError(
            f"{_CANNOT} this tokenizer: llama.cpp has no name for how it splits text, {' then '.join(splits)}. "
            "`sftplug merge` writes a folder that other programs serve."
        )
    return name


def _splits(pre_tokenizer: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield the regular expressions by which text is split; what llama.cpp has not is yielded by its name."""
    for part in _flat(pre_tokenizer):
        if part["type"] == "Split" and part["behavior"] == "Isolated" and not part["invert"]:
            yield part["pattern"].get("Regex") or part["pattern"]["String"]
        elif part["type"] == "Digits" and part["individual_digits"]:
            yield _DIGITS
        elif part["type"] == "ByteLevel" and not part["add_prefix_space"]:
            if part.get("use_regex", True):
                yield _GPT2
        else:
            yield f"[{part['type']}]"


def _flat(part: Mapping[str, Any] | None) -> Sequence[Mapping[str, Any]]:
    if part is None:
        return ()
    return [inner for each in part["pretokenizers"] for inner in _flat(each)] if part["type"] == "Sequence" else [part]


# --- SentencePiece's --------------------------------------------------------------------------------------------------

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"


def _is_sentencepiece(written: Mapping[str, Any]) -> bool:
    """Whether spaces become a character of their own, and bytes without a token become tokens of bytes."""
    return bool(written["model"].get("byte_fallback")) and _SPACE in json.dumps(
        [written["normalizer"], written["pre_tokenizer"]], ensure_ascii=False
    )


def _puts_space_before(written: Mapping[str, Any]) -> bool:
    normalizer, before = written["normalizer"] or {}, written["pre_tokenizer"] or {}
    parts = [*normalizer.get("normalizers", ()), normalizer]
    return any(part.get("type") == "Prepend" for part in parts) or before.get("prepend_scheme") in ("always", "first")


def _scores(tokens: Sequence[str], merges: Sequence[tuple[str, ...]]) -> tuple[float, ...]:
    """Return a score for each token: llama.cpp joins the neighbours whose token has the highest, so the first merge's.

    A token that several pairs of neighbours become has the score of the first of them, as in SentencePiece's own files.
    """
    best: dict[str, float] = {}
    for rank, pair in enumerate(merges):
        best.setdefault("".join(pair), -float(rank))
    return tuple(best.get(token, -float(len(merges))) for token in tokens)


def split_digits(tokenizer: Any) -> None:
    """Let a tokenizer that transformers read from a GGUF file split numbers.

    transformers knows how text is split for some of the names that a file may hold, and for ``smollm`` it does not.
    """
    from tokenizers import pre_tokenizers

    parts = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
