"""Parts of hand-written pages that are written from the code, between two comments that a reader does not see."""

from __future__ import annotations


def fill(page: str, name: str, text: str) -> str:
    """Return `page` with `text` where its comments say ``<!-- NAME: written by SCRIPT -->`` and ``<!-- end NAME -->``.

    Raises ValueError where `page` does not have exactly one such part.
    """
    before, found, rest = page.partition(f"<!-- {name}: written by ")
    script, opened, rest = rest.partition(" -->\n")
    _, closed, after = rest.partition(f"<!-- end {name} -->")
    if not (found and opened and closed) or f"<!-- {name}: written by " in after:
        raise ValueError(f"the page has not one part named {name}")
    return f"{before}{found}{script}{opened}{text.strip()}\n{closed}{after}"
