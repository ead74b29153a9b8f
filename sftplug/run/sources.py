"""What a run's rows were made of, and whether they still are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sftplug.data.digest import digest
from sftplug.errors import RunError
from sftplug.plugin.calls import fingerprint, label
from sftplug.recipe.sources import sources_of

if TYPE_CHECKING:
    from sftplug.data.prepare import Prepared
    from sftplug.recipe.model import Recipe
    from sftplug.run.directory import RunDirectory


def describe_sources(recipe: Recipe) -> list[dict[str, Any]]:
    """Return where in the recipe each source stands, its name, and its fingerprint (None if it has none)."""
    return [
        {"at": where, "source": label(source), "fingerprint": fingerprint(source)}
        for where, source in sources_of(recipe)
    ]


def meta_of(recipe: Recipe) -> dict[str, dict[str, str]]:
    """Return place in the recipe -> ``meta`` of the sources that have any."""
    splits = (("train", recipe.data.train), ("eval", recipe.data.eval))
    return {
        f"data.{split}[{index}]": dict(source.meta)
        for split, sources in splits
        for index, source in enumerate(sources)
        if source.meta
    }


def check_sources(directory: RunDirectory, recipe: Recipe) -> None:
    """Raise RunError naming every source that holds other rows than when the run began."""
    if not (directory.path / "data.json").is_file():
        return  # the run ended before its rows were prepared
    known = {source["at"]: source for source in directory.data()["sources"]}
    changed = [
        f"  {now['at']}: {now['source']}"
        for now in describe_sources(recipe)
        if now["at"] in known and now["fingerprint"] != known[now["at"]]["fingerprint"]
    ]
    if changed:
        lines = "\n".join(changed)
        raise RunError(f"the rows of the run in {directory.path} have changed since it began:\n{lines}")


def describe_rows(prepared: Prepared) -> dict[str, Any]:
    """Return number and hash of the prepared rows of each split, and the turn ends that came with the model."""
    splits = {"train": prepared.train, "eval": prepared.eval}
    described: dict[str, Any] = {
        name: {"rows": len(rows), "sha256": digest(rows)} for name, rows in splits.items() if rows is not None
    }
    return {**described, "end_tokens": sorted(prepared.end_tokens)}


def check_rows(directory: RunDirectory, now: dict[str, Any]) -> None:
    """Raise RunError when the prepared rows `now` are not, to the byte, those of the run in `directory`."""
    known = directory.data()
    for split in ("train", "eval"):
        before, after = known.get(split), now.get(split)
        if before != after:
            was, is_ = _described(before), _described(after)
            raise RunError(
                f"the prepared {split} rows are not those of the run in {directory.path}: {is_} now, {was} then. "
                "Something that makes them has changed: a source without a fingerprint, a plugin, a library, the "
                "tokenizer, or the date in a chat template that prints it."
            )


def _described(rows: dict[str, Any] | None) -> str:
    return f"{rows['rows']} rows with the hash {rows['sha256'][:12]}" if rows else "none"
