"""For plugin authors and test suites: the laws of every kind of component, and what tests are made of.

Each ``check_…`` takes a component class, and its options by name where it needs any::

    from sftplug.testing import check_masking

    def test_laws():
        check_masking(MyMask, weight=2.0)

It raises LawBroken for the first law that the component breaks; the text says which law, what was found and how to
fix it. Nothing in sftplug itself uses this package. The checks need hypothesis: ``pip install 'sftplug[testing]'``.
"""

from sftplug.testing.adapters import check_adapter
from sftplug.testing.callbacks import check_callback
from sftplug.testing.commands import check_command
from sftplug.testing.component import check_component, check_upgrade
from sftplug.testing.examine import examine
from sftplug.testing.exporters import check_exporter
from sftplug.testing.formats import check_format
from sftplug.testing.heads import check_head
from sftplug.testing.law import LawBroken
from sftplug.testing.length import check_length_policy
from sftplug.testing.losses import check_loss
from sftplug.testing.masking import check_masking
from sftplug.testing.metrics import check_metric
from sftplug.testing.optimizers import check_optimizer
from sftplug.testing.patches import check_model_patch
from sftplug.testing.policies import check_policy
from sftplug.testing.quantization import check_quantization
from sftplug.testing.rows import check_row_processor
from sftplug.testing.schedules import check_schedule
from sftplug.testing.sections import check_recipe_section
from sftplug.testing.sources import check_source
from sftplug.testing.spans import assistant_spans
from sftplug.testing.templates import check_template
from sftplug.testing.tokens import token_batch

__all__ = [
    "LawBroken",
    "assistant_spans",
    "check_adapter",
    "check_callback",
    "check_command",
    "check_component",
    "check_exporter",
    "check_format",
    "check_head",
    "check_length_policy",
    "check_loss",
    "check_masking",
    "check_metric",
    "check_model_patch",
    "check_optimizer",
    "check_policy",
    "check_quantization",
    "check_recipe_section",
    "check_row_processor",
    "check_schedule",
    "check_source",
    "check_template",
    "check_upgrade",
    "examine",
    "token_batch",
]
