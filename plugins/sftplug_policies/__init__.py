"""Policies: rules that a team or a house holds its recipes to."""

from sftplug import Policy, hookimpl
from sftplug_policies.forbid import Forbid
from sftplug_policies.limits import Limits


@hookimpl
def sftplug_policies() -> list[type[Policy]]:
    """Offer them."""
    return [Forbid, Limits]
