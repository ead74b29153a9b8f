"""What the recipe does not allow to be lost is refused, all of it at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import ceil

from sftplug.data.row_warnings import LAID_OUT, UNUSED_WEIGHT
from sftplug.data.unread_columns import unread_columns
from sftplug.data.unread_keys import offered_options, unread_keys
from sftplug.errors import DataError, MaskError
from sftplug.plugin.calls import undecided_option
from sftplug.recipe.model import DataSection, SourceSection
from sftplug.types.ledger import MOST_ORIGINS, Account, Ledger, length_quantiles
from sftplug.types.reasons import RowGroup

_SAYINGS = {
    "bad": ("do not fit their format", "Fix them, or set `data.on_bad_row: skip`."),
    "refused": (
        "are refused by the chat template",
        "Fix them, choose another chat template, or leave them out with `data.on_bad_row: skip`.",
    ),
    "unsafe": ("have no loss mask that can be trusted", "The chat template and these rows do not go together."),
    "empty": ("have no token to train on", "Fix them or the masking, or set `data.on_empty: drop`."),
    "too long": ("are too long", "Raise `data.max_length`, or choose another `data.too_long`, such as `drop`."),
}


def enforce_limits(
    ledger: Ledger, data: DataSection, ways: Callable[[RowGroup], Iterable[str]] = lambda _: (), idle: str = ""
) -> None:
    """Raise for every row that ended where the recipe does not allow it: MaskError for masks, else DataError.

    `ways` says what would let the rows through that are refused or have no safe mask for one reason; `idle` is a chat
    template that the recipe names and that no row was rendered with.
    """
    fatal = ["bad", "refused"] if data.on_bad_row == "error" else []
    fatal += ["unsafe"]
    fatal += ["empty"] if data.on_empty == "error" else []
    fatal += ["too long"] if data.too_long.refuses else []
    accounts = [account for _, account in ledger.accounts()]
    named = {id(account): source for _, source, mine in _by_source(ledger, data) for account in mine}
    letters = [text for account in accounts for text in _letters(account, fatal, ways, named.get(id(account)))]
    if data.on_unread_column == "error":
        letters += [
            letter
            for _, source, mine in _by_source(ledger, data)
            for account in mine
            for letter in (*_unread(account, source), *_unused(account))
        ]
    letters += [*_unfilled(ledger, data), *_unled(ledger, data), *_idle(ledger, data, idle)]
    letters += [letter for account in accounts for letter in (*_losses(account, data), *_drops(account, data))]
    # That no row is left follows from most of what else may be wrong, and is said only where it is the one thing to
    # say.
    letters = letters or list(_nothing_left(ledger, data))
    if letters:
        unsafe = [account for account in accounts if account.dropped["unsafe"]]
        text = "\n".join(letters)
        raise MaskError(text, picture=unsafe[0].picture) if unsafe else DataError(text)


def _letters(
    account: Account, fatal: Sequence[str], ways: Callable[[RowGroup], Iterable[str]], source: SourceSection | None
) -> Iterator[str]:
    """Yield a paragraph for each stage in `fatal` that ended rows of this source: each reason once."""
    for stage in fatal:
        count = account.dropped[stage]
        if count:
            what, remedy = _SAYINGS[stage]
            groups = account.groups[stage].largest()
            if source is not None and stage == "bad":
                remedy = _lacking_column(account, groups, source) or remedy
            lines = [f"{count} of {account.rows} rows of {account.source} {what}:"]
            for group in groups[:MOST_ORIGINS]:
                out = ", or ".join(ways(group)) if stage in ("unsafe", "refused") else ""
                lines += [f"  {group.sentence()}", *[f"    Way out: {out}."] * bool(out)]
            lines += [f"  … and {len(groups) - MOST_ORIGINS} more reasons"] if len(groups) > MOST_ORIGINS else []
            lines += list(offered_options(account)) if stage == "bad" else []
            yield "\n".join([*lines, remedy])


def _lacking_column(account: Account, groups: Sequence[RowGroup], source: SourceSection) -> str:
    """Return what to do where no row has a column that the source names: to skip such rows would leave none."""
    named = dict.fromkeys(source.tags, "tags") | ({source.row_weight: "row_weight"} if source.row_weight else {})
    for column, option in named.items():
        lacking = [group.rows for group in groups if group.text.startswith(f"{column}: is missing.")]
        if sum(lacking) == account.rows:
            where = f"`{option}` of this source"
            return f"No row has the column '{column}'. Correct the name in {where}, or take it out there."
    return ""


def _unread(account: Account, source: SourceSection) -> Iterable[str]:
    """Return paragraphs about columns and keys that nothing reads; none where the source says to ignore the rest."""
    return () if source.ignore == "rest" else (*unread_columns(account, source.format), *unread_keys(account))


def _unfilled(ledger: Ledger, data: DataSection) -> Iterator[str]:
    """Yield a paragraph for each text of a source's ``replace`` that stands in none of its rows."""
    for name, source, accounts in _by_source(ledger, data):
        missing = [text for text in source.replace if not any(account.filled[text] for account in accounts)]
        if missing:
            texts = ", ".join(map(repr, missing))
            yield (
                f"`replace` of `{name}` names {texts}, which stands in no row of {accounts[0].source}. Correct it, or "
                "leave it out."
            )


def _unled(ledger: Ledger, data: DataSection) -> Iterator[str]:
    """Yield a paragraph when no row gets the system turn of all sources."""
    takers = [accounts for _, source, accounts in _by_source(ledger, data) if source.system is None]
    if data.system is not None and not any(account.led for accounts in takers for account in accounts):
        yield (
            "`data.system` is the system turn of no row: each has one of its own or of its source, or is plain text, "
            "which no chat template renders. Leave it out."
        )


def _idle(ledger: Ledger, data: DataSection, template: str) -> Iterator[str]:
    """Yield a paragraph when the recipe names a chat template, and all rows are joined as they stand."""
    undecided = [
        (source.format, option)
        for _, source, accounts in _by_source(ledger, data)
        if (option := undecided_option(source.format))
        and any(account.plain > account.noted[LAID_OUT] for account in accounts)
    ]
    if template and undecided:
        format, option = undecided[0]
        yield (
            f"the recipe names the chat template '{template}', and it renders no row: prompts and completions are "
            f"joined as they stand. `format: {{type: {format.type}, {option}}}` makes turns of them, which it renders; "
            f"`format: {{type: {format.type}, as: text}}` says that they are text; or leave `chat_template` out."
        )


def _by_source(ledger: Ledger, data: DataSection) -> Iterator[tuple[str, SourceSection, list[Account]]]:
    """Yield each source with its name in the recipe and its accounts: two where a fraction of it is held out."""
    for where, sources in (("train", data.train), ("eval", data.eval)):
        # A text that is replaced in held-out rows alone is found, too.
        splits = ("train", "eval") if where == "train" and data.eval_fraction else (where,)
        for index, source in enumerate(sources):
            yield f"data.{where}[{index}]", source, [ledger.splits[split][index] for split in splits]


def _unused(account: Account) -> Iterator[str]:
    """Yield a paragraph when rows say how much they count in the loss, and no masking strategy reads it."""
    count = account.noted[UNUSED_WEIGHT]
    if count:
        yield (
            f"{count} of {account.rows} rows of {account.source} have loss weights that nothing reads. The first: "
            f"{account.reasons[UNUSED_WEIGHT][0]}. Add `message_weights` to the masking, or continue without them with "
            "`data.on_unread_column: report`."
        )


def _losses(account: Account, data: DataSection) -> Iterator[str]:
    """Yield a paragraph when more of what would be trained is too long than the recipe allows."""
    share = account.lost / (account.lost + account.trained) if account.lost else 0.0
    allowed = _max_loss(data)
    if not data.too_long.refuses and account.trained and share > allowed:
        counts = {
            "dropped": account.dropped["too long"],
            **{kind: account.noted[kind] for kind in ("shortened", "cut")},
        }
        fate = [f"{count} {what}" for what, count in counts.items() if count]
        length = _sufficient(account, allowed)
        longer = f", or `data.max_length: {length}` if the model takes rows of that length" if length else ""
        # `max_loss` is said rounded up, 1.24 % as 1.3 %: with 1.2 % the run would be refused again.
        yield (
            f"{sum(counts.values())} of {account.rows} rows of {account.source} are too long ({', '.join(fate)}): "
            f"{share:.1%} of its trained tokens would be lost, {allowed:.1%} are allowed. "
            f"{_lengths(account.lengths, account.unmeasured)} "
            f"Set `data.max_loss: {ceil(share * 1000) / 10:g}%` to do without them{longer}."
            f"{_chunks([account], data)}"
        )


def _max_loss(data: DataSection) -> float:
    """Return the share that may be lost; whoever chooses a policy that cuts asks for it, unless a limit is named."""
    if data.max_loss is not None:
        return data.max_loss
    return 0.01 if data.too_long.limited else 1.0


def _chunks(accounts: Sequence[Account], data: DataSection) -> str:
    """Return what parts a document, which has no turns; nothing where there is none, or the policy does so."""
    if not any(account.documents for account in accounts) or data.too_long.type == "chunks":
        return ""
    return " Plain text has no turns to part it at: `data.too_long: chunks` makes rows of it and loses nothing."


def _sufficient(account: Account, allowed: float) -> int | None:
    """Return the least `data.max_length` with which no more is lost than allowed; None where nobody measured it."""
    # Rows of 600, 700 and 4000 tokens lose 1, 1 and 8 of 100: with 5 % allowed 4000 is needed, with 8 % 700 will do.
    left, total = account.lost, account.lost + account.trained
    for length in sorted(account.lost_at):
        left -= account.lost_at[length]
        if left <= allowed * total + _ROUNDED:
            return length
    return None


_ROUNDED = 1e-6
"""What is left of a sum of loss weights when each was taken off again."""


def _drops(account: Account, data: DataSection) -> Iterator[str]:
    """Yield a paragraph when more rows are dropped, for whatever reason, than the recipe allows."""
    dropped = sum(account.dropped.values())
    if account.rows and dropped / account.rows > data.max_dropped:
        why = ", ".join(f"{count} {stage}" for stage, count in account.dropped.items())
        first = next(iter(account.reasons.get(next(iter(account.dropped)), [])), "")
        yield (
            f"{dropped} of {account.rows} rows of {account.source} would be dropped ({dropped / account.rows:.1%}), "
            f"{data.max_dropped:.1%} are allowed by `data.max_dropped`: {why}. The first: {first}"
        )


def _nothing_left(ledger: Ledger, data: DataSection) -> Iterator[str]:
    for split, accounts in ledger.splits.items():
        if any(account.kept for account in accounts):
            continue
        dropped: Counter[str] = sum((account.dropped for account in accounts), Counter())
        lengths: Counter[int] = sum((account.lengths for account in accounts), Counter())
        unmeasured = sum(account.unmeasured for account in accounts)
        why = ", ".join(f"{count} {stage}" for stage, count in dropped.items()) or _why_none(data)
        first = next((lines[0] for account in accounts for lines in account.reasons.values()), "")
        hint = f" {_lengths(lengths, unmeasured)} {_longer(accounts, data)}" if dropped["too long"] else ""
        yield f"no row of the split '{split}' is left: {why}.{f' The first: {first}.' if first else ''}{hint}"


def _lengths(lengths: Counter[int], unmeasured: int) -> str:
    """Return how long the rows are, as a sentence."""
    shares = length_quantiles(lengths, unmeasured)
    return f"Lengths in tokens: {', '.join(f'{share} up to {length}' for share, length in shares.items())}."


def _longer(accounts: Sequence[Account], data: DataSection) -> str:
    """Return what would keep rows of which the policy could keep no part."""
    policy, enough = data.too_long, [_sufficient(account, _max_loss(data)) for account in accounts]
    why = f"`data.too_long: {policy.type}` found no part of them that fits. "
    longer = (
        f"Set `data.max_length: {max(filter(None, enough), default=0)}` if the model takes rows of that length, or "
    )
    return (
        f"{why if policy.shortens else ''}{longer if all(enough) else 'Set '}"
        f"`data.too_long: truncate` where the first {data.max_length} tokens hold what is to be learned."
        f"{_chunks(accounts, data)}"
    )


def _why_none(data: DataSection) -> str:
    if data.eval_fraction:
        return (
            f"`data.eval_fraction: {data.eval_fraction}` of the rows drew none. Raise it, or name rows in `data.eval`"
        )
    return "no rows were read"
