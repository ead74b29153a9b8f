"""Plugins: the kinds of component, the hooks that offer them, how plugins are found, checked and called.

`components` has the kinds, `hookspecs` the hooks, `manager` finds and loads plugins, `registry` knows what they offer,
`calls` is the one way into a component, and `errors` says whose fault an error is.
"""
