"""What is offered by distributions of sftplug's own that are installed apart: the name stays, and says where it is."""

OFFERED_BY = {
    "liger": "sftplug-liger",
    "schedule_free": "sftplug-schedule-free",
}
"""Name of a component -> the distribution that offers it."""
