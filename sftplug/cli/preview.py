"""``sftplug preview``"""

from __future__ import annotations


def preview() -> None:
    """Show which tokens are trained."""
