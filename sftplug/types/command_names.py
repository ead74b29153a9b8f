"""What the commands of sftplug itself are called: known without importing any of them."""

COMMAND_NAMES = frozenset(
    (
        *(
            "chat",
            "check",
            "data",
            "eval",
            "explain",
            "export",
            "merge",
            "plan",
            "plugins",
            "prepare",
            "preview",
            "push",
        ),
        *("recipes", "replay", "report", "runs", "schema", "train"),
    )
)
"""Names that the command of a plugin cannot have."""
