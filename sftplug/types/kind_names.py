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
    "optimizer",
    "schedule",
    "callback",
    "metric",
    "exporter",
    "policy",
    "source",
)
"""In the order of `sftplug.scaffold.KINDS`, which says what is written for each."""
