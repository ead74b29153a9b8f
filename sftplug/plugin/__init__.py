"""Plugins: the kinds of component, the hooks that offer them, how plugins are found, checked and called.

`components` has the kinds, `hookspecs` the hooks, `manager` finds and loads plugins, `registry` knows what they offer,
`calls` is the one way into a component, and `errors` says whose fault an error is.
"""

from sftplug.plugin.deprecation import keep_field
from sftplug.types.tokens import TokenBatch

# Whoever gets tokens is a component, or tests one: all of them come through here.
keep_field(TokenBatch, "sftplug.TokenBatch.item")
