"""What `sftplug plugins new` calls the kinds of component: known without importing any of them."""

KIND_NAMES = (
    "format",
    "processor",
    "template",
    "masking",
    "quantization",
    "patch",
    "adapter",
    "loss",
    "head",
    "optimizer",
    "schedule",
    "callback",
    "metric",
    "exporter",
    "policy",
    "section",
    "command",
    "source",
)
"""In the order of `sftplug.scaffold.KINDS`, which says what is written for each."""

PREFIX, KEYWORD = "sftplug-", "sftplug-plugin"
"""What the name of a plugin's distribution begins with, and what is among its keywords: so it is found on an index."""
CLASSIFIER = "Framework :: sftplug"
"""The same for indexes that take any classifier, as PyPI does not."""
