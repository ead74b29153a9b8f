"""Calls of what makes token rows: sources, formats, chat templates, masking strategies, length policies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from sftplug.errors import MaskError, PluginError, SftplugError
from sftplug.plugin.calls.check import checked, kind_of, sentences
from sftplug.plugin.components import DatasetSource, parts_of
from sftplug.plugin.errors import complain, failed, plugin_error, plugin_errors
from sftplug.types.conversation import Conversation, Message, Row
from sftplug.types.recognition import Recognized
from sftplug.types.tokens import ROLE_CODES
from sftplug.util.redact import redact

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    from sftplug.plugin.components import ChatTemplate, DatasetFormat, LengthPolicy, Masking
    from sftplug.types.tokens import LongRow, TokenBatch


def label(source: DatasetSource) -> str:
    """Return the name of a source, without secrets. Raises PluginError for anything but text."""
    with plugin_errors(source, "label"):
        answer: object = source.label()
    text: str = checked(source, "label", answer, str, "text")
    return redact(text)


def source_notes(source: DatasetSource) -> tuple[str, ...]:
    """Return what a source says of its rows beforehand. Raises PluginError for anything but sentences."""
    with plugin_errors(source, "notes"):
        return tuple(sentences(source, "notes", source.notes()))


def fingerprint(source: DatasetSource) -> str | None:
    """Return what changes with the rows of a source. Raises PluginError for anything but text and None."""
    with plugin_errors(source, "fingerprint"):
        answer: object = source.fingerprint()
    return None if answer is None else checked(source, "fingerprint", answer, str, "text or None")


def stamp(source: DatasetSource) -> str | None:
    """Return what changes when a source is written to. Raises PluginError for anything but text and None."""
    with plugin_errors(source, "stamp"):
        answer: object = source.stamp()
    return None if answer is None else checked(source, "stamp", answer, str, "text or None")


def is_remote(source: DatasetSource) -> bool:
    """Return whether rows come over the network. Raises PluginError for anything but true or false."""
    with plugin_errors(source, "remote"):
        answer: object = source.remote
    own = bool(checked(source, "remote", answer, bool, "True or False"))
    return own or any(is_remote(part) for _, part in parts_of(source) if isinstance(part, DatasetSource))


def read_rows(source: DatasetSource) -> Iterator[Row]:
    """Yield the rows of a source. Raises PluginError for one that is not a `Row`."""
    for row in _rows(source):
        if not isinstance(row, Row) or not isinstance(row.data, Mapping):
            data = f" with data of {type(row.data).__name__}" if isinstance(row, Row) else ""
            raise plugin_error(source, "rows", f"must yield sftplug.Row(data, origin), not {type(row).__name__}{data}")
        yield row


def _rows(source: DatasetSource) -> Iterator[object]:
    with plugin_errors(source, "rows"):
        rows: object = source.rows()
        if not isinstance(rows, Iterable):
            raise plugin_error(source, "rows", f"must yield rows, not return {kind_of(rows)}")
        yield from rows


def conversation_of(format_: DatasetFormat, row: Mapping[str, Any], origin: str = "") -> Conversation:
    """Return the conversation that a format makes of a row. Raises RowError, and PluginError for anything else."""
    try:
        answer: object = format_.to_conversation(row)
    except SftplugError:
        raise
    except Exception as error:
        where = f"{origin}: " if origin else ""
        raise PluginError(f"{where}{failed(format_, 'to_conversation', error)}") from error
    if not isinstance(answer, Conversation):
        raise plugin_error(format_, "to_conversation", f"must return a sftplug.Conversation, not {kind_of(answer)}")
    for message in answer.messages:
        if not isinstance(message, Message):
            text = f"must return a conversation of sftplug.Message, not of {kind_of(message)}"
            raise plugin_error(format_, "to_conversation", text)
    return answer


def recognition(format_: type[DatasetFormat], rows: Sequence[Mapping[str, Any]]) -> Recognized | str | None:
    """Return what a class of formats says of rows. Raises PluginError for anything but what it may say.

    It gets a copy of the rows.
    """
    with plugin_errors(format_, "recognizes"):
        answer: object = format_.recognizes(deepcopy(list(rows)))
    if answer is None or isinstance(answer, str):
        return answer if answer is None else redact(answer)
    if not isinstance(answer, Recognized):
        text = f"must return sftplug.Recognized, a sentence that says why not, or None, not {kind_of(answer)}"
        raise plugin_error(format_, "recognizes", text)
    options: object = answer.options
    if not isinstance(options, Mapping) or "type" in options or not isinstance(answer.by, str) or not answer.by:
        text = f"must say by what it knows the rows, and the options without `type`, not {answer!r}"
        raise plugin_error(format_, "recognizes", text)
    return answer


def undecided_option(format_: DatasetFormat) -> str | None:
    """Return the option that would make turns of rows; None for none. Raises PluginError for anything but text."""
    with plugin_errors(format_, "undecided"):
        answer: object = format_.undecided
    return None if answer is None else checked(format_, "undecided", answer, str, "text or None")


def template_source(template: ChatTemplate, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the Jinja source of a chat template. Raises PluginError for anything but text."""
    with plugin_errors(template, "source"):
        answer: object = template.source(tokenizer)
    text: str = checked(template, "source", answer, str, "the template's Jinja source as text")
    return text


def loss_weights(masking: Masking, tokens: TokenBatch) -> NDArray[np.float32]:
    """Return the (N,) loss weight of each token.

    Raises MaskError for what is not a weight: another shape, negative, or not finite.
    """
    import numpy as np

    with plugin_errors(masking, "weights"):
        weights = np.asarray(masking.weights(tokens))
    if weights.shape != tokens.ids.shape:
        raise _no_weights(masking, f"returned an array of shape {weights.shape}; expected {tokens.ids.shape}")
    if weights.dtype != np.bool_ and weights.dtype.kind not in "iuf":
        raise _no_weights(masking, f"returned an array of {weights.dtype}; expected bool or float")
    if weights.dtype == np.bool_:
        return weights.astype(np.float32)
    weights = weights.astype(np.float32)
    if not np.isfinite(weights).all() or (weights < 0).any():
        bad = int(np.flatnonzero(~np.isfinite(weights) | (weights < 0))[0])
        text = f"gave token {bad} of the batch the weight {weights[bad]}; weights are finite and >= 0"
        raise _no_weights(masking, text)
    return weights


def _no_weights(masking: Masking, text: str) -> MaskError:
    return MaskError(complain(masking, "weights", text))


def trains(masking: Masking) -> frozenset[str]:
    """Return the roles that a strategy trains beside the assistant. Raises PluginError for anything but roles."""
    with plugin_errors(masking, "trains"):
        answer: object = masking.trains
    roles = frozenset(answer) if isinstance(answer, frozenset | set | tuple | list) else None
    if roles is None or not roles <= {*ROLE_CODES}:
        raise plugin_error(
            masking, "trains", f"must return a frozenset of roles ({', '.join(ROLE_CODES)}), not {answer!r}"
        )
    return roles


def reads_turns(masking: Masking) -> bool:
    """Return whether a strategy asks whose a token is. Raises PluginError for anything but true or false."""
    with plugin_errors(masking, "reads_turns"):
        answer: object = masking.reads_turns
    return bool(checked(masking, "reads_turns", answer, bool, "True or False"))


def shortened(policy: LengthPolicy, row: LongRow) -> Sequence[Conversation] | slice | Sequence[slice]:
    """Return what stands in for a row that is too long. Raises PluginError for what is not shorter."""
    with plugin_errors(policy, "shorten"):
        answer: object = policy.shorten(row)
    if isinstance(answer, slice):
        return answer
    items: Sequence[Any] = answer if isinstance(answer, list | tuple) else [answer]
    if items and all(isinstance(item, slice) for item in items):
        return items
    messages = len(row.conversation.messages)
    for item in items:
        # Fewer messages each time: so a row that is too long even then is shortened again, and that comes to an end.
        if not isinstance(item, Conversation) or len(item.messages) >= messages:
            text = f"must return conversations with fewer messages than the row's {messages}, or a slice"
            raise plugin_error(policy, "shorten", f"{text} of its tokens, or slices, not {kind_of(answer)}")
    return items
