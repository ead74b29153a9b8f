"""What the trained model holds that the trainer's own checkpoint does not give back, kept in a file beside it.

PEFT saves of an adapter what inference needs: of `p_tuning` the prompt, and not the network that makes it; of `adalora`
not what it has seen of the gradients. transformers saves a mixture of experts under names that its own trainer does
not find again. So every tensor that is trained, or that came with the adapter, is looked for in the files that the
trainer has written; what is not there, to the bit, is written to ``rest.safetensors``.
"""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sftplug.errors import ModelError, RunError
from sftplug.training.object_state import Snapshot, equal, give_back, take_down
from sftplug.util.arguments import argument

if TYPE_CHECKING:
    from torch import Tensor, nn

REST = "rest.safetensors"
"""Tensors by their name in the model, adapter and all; attributes by the module that has them."""
_ATTRIBUTES, _SWITCHED, _FROZEN = "attributes", "switched", ":frozen"
_SAMPLED = 16
"""So many numbers of each weight that is not trained are remembered, to know it again."""


class Base:
    """A model as it was before its adapter came."""

    def __init__(self, model: nn.Module) -> None:
        """Remember which tensors and modules there are; nothing is kept alive."""
        # `_version` counts what is written to a tensor in place: so an adapter that begins by changing a weight is
        # found out.
        self._tensors = {id(tensor): (weakref.ref(tensor), tensor._version) for _, tensor in _tensors(model)}
        self._modules = weakref.WeakSet(model.modules())
        self._samples = [(weakref.ref(parameter), sample(parameter)) for parameter in model.parameters()]

    def owns(self, tensor: Tensor) -> bool:
        """Whether the tensor was there, and has not been written to since."""
        known, version = self._tensors.get(id(tensor), (None, None))
        return known is not None and known() is tensor and version == tensor._version

    def is_untouched(self) -> bool:
        """Whether all parameters are still what they were: no adapter began by changing them, none is trained."""
        now = [(ref(), before) for ref, before in self._samples]
        return all(
            parameter is not None and not parameter.requires_grad and bool(equal(sample(parameter), before))
            for parameter, before in now
        )

    def has(self, module: nn.Module) -> bool:
        """Whether the module was there."""
        return module in self._modules


class TrainedState:
    """What a trained model holds: read off it for each checkpoint, and given back from one."""

    def __init__(self, model: nn.Module, base: Base, *, beside: bool) -> None:
        """Take down how `model` is before it is trained; `base` is what it was before the adapter came.

        `beside` says that what is trained stands beside the base, and is saved without it.
        """
        self._model, self.base = model, base
        self.whole = not beside
        """Whether checkpoints hold the whole model."""
        self._first = dict(self._memories())
        self._trained = self._trained_now()
        self._switched: Mapping[str, bool] = {}
        frozen = [
            (name, sample(parameter)) for name, parameter in model.named_parameters() if not parameter.requires_grad
        ]
        self._frozen = dict(frozen)

    def tensors(self) -> dict[str, Tensor]:
        """Return by name what is trained, and what the adapter brought; of a model without one, all buffers too."""
        return {
            name: tensor
            for name, tensor in _tensors(self._model)
            if tensor.requires_grad
            or (isinstance(tensor, torch.nn.Parameter) is False and self.whole)
            or (not self.base.owns(tensor) and type(tensor) in (torch.Tensor, torch.nn.Parameter))
        }

    def _trained_now(self) -> set[str]:
        return {name for name, parameter in self._model.named_parameters() if parameter.requires_grad}

    def _memories(self) -> Iterator[tuple[str, Snapshot]]:
        """Yield module -> what it remembers beside tensors that are registered; only modules that the adapter brought.

        Those of torch itself remember nothing that matters.
        """
        for name, module in self._model.named_modules():
            if not self.base.has(module) and not type(module).__module__.startswith(("torch.", "transformers.")):
                yield name, take_down(module)

    def refuse_left_out(self, *, allocates: bool) -> None:
        """Raise ModelError for what PEFT's own files leave out: where processes share the model, nothing else is kept.

        `allocates` says that the adapter shares out its ranks by what it has seen of the gradients.
        """
        if not hasattr(self._model, "peft_config"):
            return
        from peft import get_peft_model_state_dict

        kept = get_peft_model_state_dict(self._model)
        active: Any = self._model.active_peft_config
        prompt = active.is_prompt_learning  # saved under another name
        for name, tensor in self.tensors().items():
            known = kept.values() if prompt else [kept[short] for short in [_short(name)] if short in kept]
            if tensor.requires_grad and not any(equal(item.detach(), tensor.detach()) for item in known):
                raise ModelError(_left_out(name))
        if allocates:
            raise ModelError(_left_out("what it has seen of the gradients"))

    # --- write --------------------------------------------------------------------------------------------------------

    def write(self, folder: Path) -> None:
        """Write to `folder` what its files do not give back, and by what the weights that are not trained are known."""
        from safetensors.torch import save_file

        rest = {name: tensor.detach().cpu().contiguous() for name, tensor in self._not_in(folder)}
        attributes = {}
        for module, memory in self._memories():
            changed = memory.since(self._first[module])
            if changed.plain:
                attributes[module] = [[list(path), text] for path, text in changed.plain.items()]
                rest |= {_of_attribute(module, name): tensor for name, tensor in changed.tensors.items()}
        # A row more than there are parameters, so that there is something to stack where all of them are trained.
        rest[_FROZEN] = torch.stack([*self._frozen.values(), torch.zeros(_SAMPLED)])
        copies = {name: tensor.clone() for name, tensor in rest.items()}  # some share their memory
        # True is for what is trained now and was not at first, False for what is left out by now.
        switched = {name: name not in self._trained for name in self._trained ^ self._trained_now()}
        told = {_ATTRIBUTES: json.dumps(attributes), _SWITCHED: json.dumps(switched)}
        save_file(copies, folder / REST, metadata=told)

    def _not_in(self, folder: Path) -> Iterator[tuple[str, Tensor]]:
        with _Saved(folder) as saved:
            for name, tensor in self.tensors().items():
                if not saved.gives(name, tensor):
                    yield name, tensor

    # --- read ---------------------------------------------------------------------------------------------------------

    def read(self, folder: Path, *, only_rest: bool = False) -> None:
        """Give the model back what was written to `folder`; `only_rest` where the trainer has read its own files.

        Of a checkpoint without this file, which 0.1.0 wrote, all is read from the trainer's own. Raises RunError when
        something is missing, or of another shape.
        """
        with _Saved(folder) as saved, torch.no_grad():
            if saved.has_rest:
                self._refuse_other_base(saved, folder)
            else:
                self._refuse_unknown_attributes(folder)
            for name, tensor in self.tensors().items():
                known = saved.rest(name) if only_rest else saved.find(name)
                if known is None and only_rest:
                    continue
                if known is None or known.shape != tensor.shape or known.dtype != tensor.dtype:
                    raise RunError(
                        f"{folder} does not hold {name} as it is trained, so a run resumed from it would be "
                        f"another one. Begin it again with {argument('--overwrite')}."
                    )
                tensor.copy_(known)
            self._give_back_attributes(saved, folder)
            self._switched = saved.told(_SWITCHED)

    def begin_with(self, folder: Path) -> None:
        """Take what a checkpoint in `folder` holds beside the trainer's own files, if that is where a run begins.

        Another folder has no such file. What is remembered of gradients is left there: the run has its own schedule.
        """
        with _Saved(folder) as saved, torch.no_grad():
            for name, tensor in self.tensors().items():
                known = saved.rest(name)
                if known is not None and known.shape == tensor.shape:
                    tensor.copy_(known)

    def go_on(self) -> None:
        """Leave out of training what had been left out, as AdaMSS does with some of its subspaces.

        Called once the optimizer is there, for it is made of all that was trained at first.
        """
        for name, trained in self._switched.items():
            self._model.get_parameter(name).requires_grad_(trained)

    def _refuse_other_base(self, saved: _Saved, folder: Path) -> None:
        then = saved.rest(_FROZEN)
        if then is None or len(then) != len(self._frozen) + 1:
            raise RunError(
                f"{folder} was written by another version of sftplug, or is of another model. Begin a new run."
            )
        other = [name for (name, now), known in zip(self._frozen.items(), then, strict=False) if not alike(now, known)]
        if other:
            raise RunError(
                f"{folder} was written with other weights beneath what is trained: {len(other)} of {len(self._frozen)} "
                f"differ, such as {other[0]}. The model, its quantization, or how the adapter begins has changed "
                "since: go back to it, or begin a new run."
            )

    def _refuse_unknown_attributes(self, folder: Path) -> None:
        """Refuse an adapter that shares out its ranks by what it has seen, of which the checkpoint says nothing."""
        if callable(getattr(getattr(self._model, "base_model", None), "update_and_allocate", None)):
            raise RunError(
                f"{folder} was written by sftplug 0.1.0, which did not keep what this adapter has seen of the "
                f"gradients: a run resumed from it would be another one. Begin it again with {argument('--overwrite')}."
            )

    def _give_back_attributes(self, saved: _Saved, folder: Path) -> None:
        where = next(self._model.parameters()).device
        for module, remembered in saved.told(_ATTRIBUTES).items():
            for path, text in remembered:
                tensors = _Elsewhere(saved, module, where)
                try:
                    give_back(self._model.get_submodule(module), tuple(path), text, tensors)
                except (AttributeError, KeyError) as error:
                    raise RunError(
                        f"{folder}: {module} has no place for `{'.'.join(path)}` any more: {error}"
                    ) from error


def _left_out(what: str) -> str:
    return (
        f"the adapter keeps {what} where a checkpoint that FSDP or DeepSpeed write does not look, so the run could not "
        "resume from one. Choose `launch.strategy: ddp`, another adapter, or `train.save_strategy: no` and no other "
        "`train.save_*`."
    )


def _of_attribute(module: str, name: str) -> str:
    return f"{module}:{name}"


class _Elsewhere(Mapping[str, "Tensor"]):
    """Tensors of a module's attributes, by name, on the device where the model is."""

    def __init__(self, saved: _Saved, module: str, where: torch.device) -> None:
        self._saved, self._module, self._where = saved, module, where

    def __getitem__(self, name: str) -> Tensor:
        found = self._saved.rest(_of_attribute(self._module, name))
        if found is None:
            raise KeyError(name)
        return found.to(self._where)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


class _Saved:
    """The safetensors files of a checkpoint, opened for as long as they are looked into."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._files: list[Any] = []
        self._rest: Any = None
        self._where: dict[str, Any] = {}

    def __enter__(self) -> _Saved:
        from safetensors import safe_open

        for file in sorted(self._folder.glob("*.safetensors")):
            opened = self._stack.enter_context(safe_open(file, "pt"))
            if file.name == REST:
                self._rest = opened
            else:
                self._where |= dict.fromkeys(opened.keys(), opened)
        self._rest_names = set(self._rest.keys()) if self._rest is not None else set()
        return self

    @property
    def has_rest(self) -> bool:
        """Whether the checkpoint has a file beside those of the trainer; that it is whole was seen before."""
        return self._rest is not None

    def __exit__(self, *raised: object) -> None:
        self._stack.close()

    def gives(self, name: str, tensor: Tensor) -> bool:
        """Whether the trainer's files hold `tensor`: under its own name, or to the bit under the adapter's."""
        if name in self._where:
            # The trainer has just written it from memory: of the same shape and type, it is the same.
            part = self._where[name].get_slice(name)
            return tuple(part.get_shape()) == tuple(tensor.shape) and _dtype(self._where[name], name) == tensor.dtype
        known = self._adapted(name)
        return known is not None and equal(known, tensor.detach().cpu())

    def find(self, name: str) -> Tensor | None:
        """Return a tensor by its name in the model, from any of the files."""
        known = self.rest(name)
        if known is None and name in self._where:
            known = self._where[name].get_tensor(name)
        return self._adapted(name) if known is None else known

    def rest(self, name: str) -> Tensor | None:
        """Return what `Held.write` has written under `name`."""
        found: Tensor | None = self._rest.get_tensor(name) if name in self._rest_names else None
        return found

    def told(self, what: str) -> dict[str, Any]:
        """Return what `Held.write` has noted beside the tensors, by module or parameter."""
        known = (self._rest.metadata() or {}) if self._rest is not None else {}
        return dict(json.loads(known.get(what, "{}")))

    def _adapted(self, name: str) -> Tensor | None:
        """Return what PEFT has written of a tensor: it leaves out the adapter's name, and that it is a copy."""
        short = _short(name)
        found: Tensor | None = self._where[short].get_tensor(short) if short in self._where else None
        return found


def _short(name: str) -> str:
    return _ADAPTER.sub("", name)


# "q_proj.lora_A.default.weight" is "q_proj.lora_A.weight" in the files, and "lm_head.modules_to_save.default.weight" is
# "lm_head.weight".
_ADAPTER = re.compile(r"\.(?:modules_to_save\.)?default(?=\.|$)")


def _dtype(file: Any, name: str) -> torch.dtype:
    """Return the type of a tensor in a file, without reading it."""
    # A type that is not listed counts as one that no weight has, so that such a tensor is written beside.
    return _DTYPES.get(file.get_slice(name).get_dtype(), torch.float64)


_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "I64": torch.int64, "BOOL": torch.bool}


# --- weights that are not trained -------------------------------------------------------------------------------------


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def sample(parameter: Tensor) -> Tensor:
    """Return (16,) numbers of a parameter, spread over it; NaN where there are fewer, or they cannot be read here."""
    found = torch.full((_SAMPLED,), torch.nan)
    if type(parameter.data) is torch.Tensor and not parameter.is_meta and parameter.numel():
        flat = parameter.detach().reshape(-1)
        some = flat[:: max(1, flat.numel() // _SAMPLED)][:_SAMPLED].to("cpu", torch.float32)
        found[: len(some)] = some
    return found


def alike(now: Tensor, then: Tensor) -> bool:
    """Whether two samples are of one parameter: most of their numbers are within 1 % of each other.

    Another processor may round otherwise when a base is quantized or decomposed; another model differs everywhere.
    """
    known = ~(now.isnan() | then.isnan())
    apart = (now[known] - then[known]).abs() > 0.01 * then[known].abs() + 1e-4 * then[known].abs().mean().nan_to_num()
    return bool(apart.float().mean() <= 0.25) if len(apart) else True
