"""What all optimizers of transformers have in common: transformers makes them, of options that are typed here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

from sftplug import MissingLibraryError, ModelError, Optimizer, TrainedParameters, known_state_bytes, require

if TYPE_CHECKING:
    from torch import optim

_TRAINERS: Mapping[str, str] = {"beta1": "adam_beta1", "beta2": "adam_beta2", "epsilon": "adam_epsilon"}
"""Option -> the option of the trainer that it is; all others stand in its ``optim_args``."""

_UNPAGED: Mapping[str, str] = {"paged_adamw_32bit": "adamw_torch", "paged_ademamix_32bit": "ademamix"}
"""Paged optimizers -> the same without pages, where their name tells no more."""


class LibraryOptimizer(Optimizer):
    """An optimizer of transformers, by transformers' name."""

    about: ClassVar[str] = "its options are left to transformers."
    """What it is, and where it is from."""
    remake: ClassVar[Callable[[dict[str, Any]], LibraryOptimizer]]
    """Returns an optimizer of this name, with options."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what was set: the class is made, and so it cannot be imported where the copy is read."""
        return type(self).remake, (self.model_dump(by_alias=True, exclude_unset=True),)

    @property
    def adam_like(self) -> bool:  # type: ignore[override]
        """Whether it is of Adam's kin, by its name."""
        return "adam" in self.type or "ademamix" in self.type

    def optimizer(self, trained: TrainedParameters, learning_rate: float) -> optim.Optimizer:
        """Return what transformers makes. Raises MissingLibraryError and ModelError with its own reason."""
        transformers = require("transformers", needed_by=f"optimizer {self.type}")
        self._refuse_pages(trained)
        try:
            # The function reads the options of a trainer, of which the rest decides nothing here.
            made, options = transformers.Trainer.get_optimizer_cls_and_kwargs(
                self._arguments(trained, learning_rate), trained.model
            )
            options.pop("model", None)
            optimizer: optim.Optimizer = made(self.grouped(trained, options.pop("params", None)), **options)
        except ImportError as error:
            raise MissingLibraryError(f"optimizer {self.type}: {error}") from error
        except (ValueError, TypeError) as error:
            raise ModelError(f"optimizer {self.type}: {error}") from error
        if options.get("optim_bits") == 8:
            _keep_tables_in_32_bits(trained)
        return optimizer

    def _refuse_pages(self, trained: TrainedParameters) -> None:
        """Raise ModelError for a paged optimizer on a CPU, where bitsandbytes would page nothing."""
        if self.type.startswith("paged_") and any(p.value.device.type == "cpu" for p in trained.parameters):
            other = _UNPAGED.get(self.type, self.type.removeprefix("paged_"))
            text = f"pages from the memory of a GPU to that of the CPU, and this is a CPU. Choose `{other}`."
            raise ModelError(f"optimizer {self.type} {text}")

    def grouped(self, trained: TrainedParameters, groups: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
        """Return torch's parameter groups; `groups` are those of transformers, where it makes some by itself."""
        return trained.groups()

    def _arguments(self, trained: TrainedParameters, learning_rate: float) -> Any:
        """Return options of a trainer as transformers reads them."""
        from transformers.training_args import OptimizerNames

        fields = type(self).model_fields
        chosen = {name: getattr(self, name) for name, field in fields.items() if getattr(self, name) != field.default}
        pairs = [f"{name}={value}" for name, value in chosen.items() if name not in _TRAINERS]
        given = {_TRAINERS[name]: value for name, value in chosen.items() if name in _TRAINERS}
        return SimpleNamespace(
            **{"adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8, **given},
            optim=OptimizerNames(self.type),
            optim_args=",".join(pairs) or None,
            learning_rate=learning_rate,
            weight_decay=trained.weight_decay,
            optim_target_modules="all-linear",
            warmup_steps=0,  # the schedule warms up
            gradient_accumulation_steps=1,
            parallel_mode=None,
        )


class Blockwise(LibraryOptimizer):
    """An optimizer of bitsandbytes, which takes no step without numbers."""

    def state_bytes(self, trained: TrainedParameters) -> int | None:
        """Return what is known of the optimizer of that name."""
        return known_state_bytes(self.type, trained)


def _keep_tables_in_32_bits(trained: TrainedParameters) -> None:
    """Keep the state of embeddings in 32 bits, as transformers' trainer does."""
    bitsandbytes = require("bitsandbytes.optim", needed_by="an optimizer in 8 bits")
    torch = require("torch", needed_by="an optimizer in 8 bits")
    manager = bitsandbytes.GlobalOptimManager.get_instance()
    for module in trained.model.modules():
        if isinstance(module, torch.nn.Embedding):
            manager.register_module_override(module, "weight", {"optim_bits": 32})
