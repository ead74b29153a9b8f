"""What all quantization methods of transformers have in common."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sftplug import (
    ComputeDtype,
    Device,
    MissingLibraryError,
    ModelError,
    Quantization,
    require,
    set_options,
    this_device,
)
from sftplug_transformers.facts import refusals, transformers_version

if TYPE_CHECKING:
    from torch import nn

    from sftplug import Recipe


_BITS = re.compile(r"(?:int|float|fp|_)(\d)(?:bit)?(?!\d)", re.IGNORECASE)


class LibraryQuantization(Quantization):
    """A quantization method of transformers: its options are transformers', and what is left out is left to it."""

    config: ClassVar[Callable[[], Any]]
    """Imports and returns transformers' configuration class."""
    remake: ClassVar[Callable[[dict[str, Any]], LibraryQuantization]]
    """Returns a method of this name, with options."""
    fixed: ClassVar[Mapping[str, Any]] = {}
    """Arguments of that class that the method's name stands for."""
    calibrated: ClassVar[bool] = False
    """Whether it reads only checkpoints that are quantized already: its weights come from data, by another tool."""
    untrainable: ClassVar[bool] = False
    """Whether nothing can be trained on its weights, not even an adapter."""

    compute_dtype: ComputeDtype | None = None
    """Type of what is not quantized; null is the one that the device trains fastest in."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what was set: the class is made, and so it cannot be imported where the copy is read."""
        return type(self).remake, (self.model_dump(by_alias=True, exclude_unset=True),)

    def for_device(self, device: Device) -> Quantization:
        """Return it with the type in which `device` trains fastest, where none is named."""
        return self if self.compute_dtype else self.model_copy(update={"compute_dtype": device.compute_dtype})

    @property
    def bits(self) -> int:  # type: ignore[override]
        """Bits of one weight: as an option says, else the default or the name; 8 where the checkpoint decides."""
        options = {field.alias or name: getattr(self, name) for name, field in type(self).model_fields.items()}
        counts = [options.get(name) for name in ("bits", "nbits", "num_bits")]
        if count := next((count for count in counts if isinstance(count, int)), None):
            return count
        # ``int4`` of quanto, ``Int8WeightOnlyConfig`` of torchao, ``nvfp4``; then ``fp8``, ``bitsandbytes_4bit``
        texts = [str(options.get(name)) for name in ("weights", "quant_type", "forward_dtype", "dtype")]
        found = next((match for text in [*texts, self.type] if (match := _BITS.search(text))), None)
        return int(found[1]) if found else 8

    @property
    def keeps_inputs(self) -> bool:  # type: ignore[override]
        """Whether products keep their input where activations are checkpointed: those of bitsandbytes in 8 bits do."""
        return bool(self.fixed.get("load_in_8bit"))

    def check(self, recipe: Recipe) -> Iterable[str]:
        """Say so when the model cannot be had in this form, or nothing can be trained on it."""
        version = transformers_version()
        if not self.adaptable:
            yield f"transformers {version}: nothing can be trained on {self.type} weights, not even an adapter."
        elif self.calibrated and self._not_quantized(recipe):
            yield (
                f"transformers {version}: {self.type} reads checkpoints that were quantized with it before, and "
                f"{self._not_quantized(recipe)}. Choose such a checkpoint, or a method that quantizes while loading."
            )
        else:
            yield from refusals(self.type)

    @property
    def adaptable(self) -> bool:
        """Whether an adapter can be trained on the weights."""
        return self._dense or not self.untrainable

    @property
    def _dense(self) -> bool:
        """Whether a quantized checkpoint is unpacked to floats while it is loaded."""
        return bool(getattr(self, "dequantize", False))

    def _not_quantized(self, recipe: Recipe) -> str | None:
        """Return why the model is known not to be quantized by this method; None for a model on the Hub."""
        if recipe.model.build is not None:
            return "a model that is built on the spot is not quantized"
        config = Path(str(recipe.model.name_or_path)) / "config.json"
        if not config.is_file():
            return None
        written = json.loads(config.read_text(encoding="utf-8")).get("quantization_config") or {}
        method = written.get("quant_method")
        return None if method == self.type else f"config.json in {config.parent} says {method or 'it is not'}"

    def load_kwargs(self) -> dict[str, Any]:
        """Return dtype and quantization configuration; a checkpoint that is quantized brings its own.

        Raises MissingLibraryError or ModelError with transformers' own reason.
        """
        needed_by = f"quantization {self.type}"
        torch = require("torch", needed_by=needed_by)
        require("transformers", needed_by=needed_by)
        options = set_options(self, leave_out=frozenset({"type", "compute_dtype"}))
        kwargs: dict[str, Any] = {"dtype": getattr(torch, self.compute_dtype or this_device().compute_dtype)}
        if "gguf_file" in options:
            kwargs["gguf_file"] = options["gguf_file"]  # from_pretrained wants it beside the configuration
        if self.calibrated and not options:
            return kwargs
        if self.type == "torchao":
            options["quant_type"] = torchao_config(options.get("quant_type"))
        try:
            return {**kwargs, "quantization_config": type(self).config()(**self.fixed, **options)}
        except ImportError as error:
            raise MissingLibraryError(f"{needed_by}: {error}") from error
        except (ValueError, TypeError) as error:
            raise ModelError(f"{needed_by}: {error}") from error

    def prepare_model(self, model: nn.Module) -> None:
        """Refuse a checkpoint that turned out not to be quantized, and keep 4-bit gradients. Raises ModelError."""
        if not self._dense and not getattr(model, "is_quantized", False):
            raise ModelError(
                f"quantization {self.type}: the checkpoint is not quantized, and {self.type} does not quantize it."
            )
        if self.fixed.get("load_in_4bit"):
            _keep_gradients(model, self.type)


def _keep_gradients(model: nn.Module, name: str) -> None:
    """Keep evaluation on CPUs with AVX512-BF16 from repacking 4-bit weights for a kernel without a backward pass."""
    bitsandbytes = require("bitsandbytes", needed_by=f"quantization {name}")
    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False


def torchao_config(value: Any) -> Any:
    """Return a configuration of torchao's: ``Int8WeightOnlyConfig``, or ``{Int4WeightOnlyConfig: {group_size: 32}}``.

    Raises ModelError for a name or an option that torchao does not know.
    """
    require("torchao", needed_by="quantization torchao")
    torchao = require("torchao.quantization", needed_by="quantization torchao")
    (name, options), *rest = value.items() if isinstance(value, Mapping) and value else [(value, {})]
    kind = getattr(torchao, str(name), None)
    if kind is None or rest or not isinstance(options, Mapping):
        known = sorted(item for item in dir(torchao) if item.endswith("Config"))
        raise ModelError(
            f"quantization torchao: `quant_type` must be a configuration of torchao, bare or as `{{NAME: options}}`, "
            f"not {value!r}. Known: {', '.join(known)}."
        )
    try:
        return kind(**options)
    except (TypeError, ValueError, AssertionError) as error:
        raise ModelError(f"quantization torchao: {name}: {error}") from error
