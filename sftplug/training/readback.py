"""What is saved is read back, as whoever gets it will, before a run is called finished, and tried before it begins."""

from __future__ import annotations

import copy
import random
import tempfile
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftplug.errors import ModelError, SftplugError, TrainingError
from sftplug.model.continued import continued
from sftplug.model.loading import load_base
from sftplug.model.own_adapter import ModelOutline, by_card, untrained, with_own_adapter
from sftplug.model.patching import by_card_of_patches, load_plain, plain_twin, without_patches
from sftplug.model.remote_code import code_options
from sftplug.plugin.calls import peft_config, prepare_model, saves_itself
from sftplug.run.failure import whats_left
from sftplug.storage.disk import no_room
from sftplug.training.patched import compare_with_plain
from sftplug.training.probe import DiffersError, Probe
from sftplug.training.rehearsal import bytes_of, compare_given_back, rehearse_whole

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sftplug.recipe.model import Recipe
    from sftplug.training.checkpointing import CheckpointingTrainer

CHEAP = 1 << 30
"""A model of more bytes is not written whole before it is trained; its files without weights are."""


class Structure:
    """The modules of a base model, without its adapter; they share every tensor with the model that is trained."""

    def __init__(self, model: nn.Module) -> None:
        """Copy the modules of `model`, to which no adapter has come yet; holds no weights of its own."""
        self._copy = _share(model)
        self._pairs = [
            (weakref.ref(live), own) for live, own in zip(model.modules(), self._copy.modules(), strict=True)
        ]

    def model(self) -> Any | None:
        """Return the base with the weights as they are now; None when some of its modules are gone."""
        for ref, own in self._pairs:
            if (live := ref()) is None:
                return None
            # Where a weight is moved or packed anew, the module has another, or bitsandbytes notes it beside.
            held = {name: value for name, value in vars(live).items() if _is_of_weights(name, value)}
            vars(own).update({name: _again(value, vars(own)[name]) for name, value in held.items()})
        return _share(self._copy)


def _is_of_weights(name: str, value: Any) -> bool:
    return name in ("_parameters", "_buffers") or type(value).__module__.startswith("bitsandbytes.")


def _share(model: nn.Module) -> Any:
    """Return a copy of the modules of `model` with the same tensors in them."""
    tensors = [*model.parameters(), *model.buffers()]
    # Its memo says what has been copied already and by what: each tensor by itself.
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def _again(value: Any, before: Any) -> Any:
    """Return a dict of its own, so that what an adapter registers on the copy is not seen by the model, nor here what
    one has registered on the model."""
    return {name: value.get(name) for name in before} if isinstance(value, dict) else value


class Before:
    """The base as it is before the adapter comes: what whoever loads the result begins with."""

    def __init__(self, recipe: Recipe, model: nn.Module) -> None:
        """Take down how `model` is; holds no weights of its own."""
        from sftplug.training.model_state import Base

        self._recipe = recipe
        beside = peft_config(recipe.adapter) is not None or saves_itself(recipe.adapter)
        self.structure = Structure(model) if beside else None
        """Its modules, where what is trained stands beside them."""
        self.base, self._outline = Base(model), ModelOutline(model)
        self.brought: list[str] = []
        """Parameters and buffers that the adapter has put into the model."""
        self.apart: float | None = None
        """How far the logits of the patched model are from those of a plain one; None where nothing is patched."""
        self.changed = False
        """Whether the adapter has changed the modules, or what they compute."""
        self._parameters = {name for name, _ in model.named_parameters()}

    def prepare(self, model: nn.Module) -> None:
        """Let the adapter prepare `model`, and see what that changes; what libraries change later is their own."""
        prepare_model(self._recipe.adapter, model)
        self.brought, self.changed = self._outline.brought(model), not self._outline.is_of(model)

    def again(self, where: Any) -> Any:
        """Return the base on the device `where`, with weights that the model shares if nothing has changed them."""
        # Some adapters begin by changing the base: then only the base as it is stored will do.
        known = self.structure.model() if self.structure is not None and self.base.is_untouched() else None
        return known if known is not None else _placed(load_base(self._recipe), where)

    def plain(self, where: Any) -> Any:
        """Return the base without the recipe's patches, on the device `where`; it shares weights where it can."""
        known = self.structure.model() if self.structure is not None and self.base.is_untouched() else None
        twin = plain_twin(self._recipe, known) if known is not None else None
        return twin if twin is not None else _placed(load_plain(self._recipe), where)

    def refuse_idle(self, model: nn.Module) -> None:
        """Raise ModelError when nothing is trained, or what the adapter does not say."""
        if problems := [*untrained(self._recipe, model, self._parameters)]:
            raise ModelError("\n".join(problems))


def is_whole_here(trainer: CheckpointingTrainer) -> bool:
    """Whether this process has the whole model: it cannot compare what others have a part of."""
    if trainer.splits_model():
        return False
    return all(type(part.data).__name__ != "DTensor" and not part.is_meta for part in trainer.model.parameters())


# --- before and after -------------------------------------------------------------------------------------------------


def try_to_save(
    recipe: Recipe,
    trainer: CheckpointingTrainer,
    before: Before,
    save: Callable[[Path], None],
    save_beside: Callable[[Path], None],
) -> None:
    """Save what is not trained yet, read it back and compare. Raises ModelError when that fails, before any step.

    `save` writes the result to a folder; `save_beside` what inference needs beside a whole model's weights.
    """
    output = Path(recipe.output)
    # Where the result will be: another disk may be full, or take no such files.
    with tempfile.TemporaryDirectory(dir=output, prefix=".trial-") as name, _undisturbed(trainer.model):
        try:
            if before.structure is None:
                _refuse_brought(recipe, before, trainer.model)
                _compare_patched(recipe, Probe(trainer), before, None)
            if before.structure is None and bytes_of(trainer.model) > CHEAP:
                rehearse_whole(trainer, Path(name), save_beside)
                _compare_tokenizer(recipe, trainer, Path(name))
                return
            with _moved(recipe, trainer.model):
                save(Path(name))
                _compare(recipe, trainer, before, Path(name))
                if trainer.held is not None:
                    trainer.held.write(Path(name))
                    compare_given_back(trainer.held, trainer.model, Path(name))
        except (DiffersError, SftplugError, *_FAILS) as error:
            if no_room(error, Path(name)) is not None:
                raise
            remedy = (
                f"Choose another adapter than '{recipe.adapter.type}', other options of it, or another `quantization`."
            )
            raise ModelError(
                f"what this run would save could not be used: {_reason(error)}. Nothing has been trained. "
                f"{getattr(error, 'remedy', None) or remedy}"
            ) from error


def refuse_other_start(recipe: Recipe, trainer: CheckpointingTrainer, before: Before) -> None:
    """Raise ModelError when an adapter that is trained on does not say, before the first step, what its folder does."""
    folder = continued(recipe)
    if folder is None:
        return
    with _undisturbed(trainer.model):
        try:
            _compare_logits(Probe(trainer), before, folder)
        except (DiffersError, *_FAILS) as error:
            raise ModelError(
                f"model.adapter: what is in {folder} cannot be trained on as it was: {_reason(error)}. It holds what "
                "inference needs, and its training needs more, as of `p_tuning` the network that makes the prompt; a "
                "checkpoint of its run holds all. Name that, as in `model: RUN/checkpoint-50`."
            ) from error


def read_back(recipe: Recipe, trainer: CheckpointingTrainer, before: Before) -> None:
    """Read back what was saved and compare it with the model in memory. Raises TrainingError when they differ."""
    output = Path(recipe.output)
    with _undisturbed(trainer.model):
        try:
            _compare(recipe, trainer, before, output)
        except (DiffersError, SftplugError, *_FAILS) as error:
            raise TrainingError(
                f"the result in {output} is not what was trained: {_reason(error)}. It is left there to be looked at. "
                f"{whats_left(output)}"
            ) from error


_FAILS = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError, NotImplementedError)
"""What libraries raise for what they cannot save or load."""


def _reason(error: Exception) -> str:
    if isinstance(error, DiffersError | SftplugError):
        return str(error).removesuffix(".")
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])}".removesuffix(".")


def _compare(recipe: Recipe, trainer: CheckpointingTrainer, before: Before, folder: Path) -> None:
    """Raise DiffersError when the model or adapter in `folder` is not the one in memory."""
    _compare_tokenizer(recipe, trainer, folder)
    probe = Probe(trainer)
    if saves_itself(recipe.adapter):
        _compare_own(recipe, probe, before, folder)
    elif before.structure is not None:
        _compare_logits(probe, before, folder)
    else:
        _compare_weights(recipe, trainer.model, folder)
        if before.changed:
            probe.compare(_placed(load_base(recipe, folder), probe.live.device), "by transformers")
    _compare_patched(recipe, probe, before, folder)


def _compare_tokenizer(recipe: Recipe, trainer: CheckpointingTrainer, folder: Path) -> None:
    from transformers import AutoTokenizer, GenerationConfig

    ours = trainer.processing_class
    saved = AutoTokenizer.from_pretrained(str(folder), **code_options(recipe.model, folder))
    if saved.get_vocab() != ours.get_vocab() or saved.chat_template != ours.chat_template:
        raise DiffersError("the tokenizer that was saved has other tokens, or another chat template")
    GenerationConfig.from_pretrained(str(folder))


# --- an adapter: its logits -------------------------------------------------------------------------------------------


def _compare_logits(probe: Probe, before: Before, folder: Path) -> None:
    """Load the adapter with PEFT on the base it was trained on, as the model card says, and compare logits."""
    assert len(probe.expected)  # computed before anything is put around the weights that both share
    probe.compare(_with_peft(before.again(probe.live.device), folder), "by PEFT")


def _compare_own(recipe: Recipe, probe: Probe, before: Before, folder: Path) -> None:
    """Load an adapter that is no type of PEFT with its own `load`, and by the code of its card; compare logits.

    Each gets a base of its own, weights and all: it may write to them.
    """
    base = copy.deepcopy(before.again(probe.live.device))
    probe.compare(with_own_adapter(recipe, base, folder), "by its own `load`")
    # A second copy beside the first may not fit.
    del base
    base = copy.deepcopy(before.again(probe.live.device))
    probe.compare(by_card(recipe.adapter, base, files=folder), "by its own `loading_code`, as its model card says,")


def _compare_patched(recipe: Recipe, probe: Probe, before: Before, folder: Path | None) -> None:
    """Compare a model with patches with a plain one that is loaded as its card says.

    Without a `folder`, where a whole model is not written for a trial, its weights are those in memory.
    """
    if not recipe.patches:
        return
    assert len(probe.expected)  # computed before anything is put around the weights that both share
    with without_patches():
        before.apart = compare_with_plain(recipe, probe, _by_card(recipe, probe.live, before, folder))


def _by_card(recipe: Recipe, model: Any, before: Before, folder: Path | None) -> Any:
    """Return what is in `folder`, or the whole `model` in memory, as the code of the card loads it."""
    where = model.device
    if before.structure is None:
        twin = None if before.changed else plain_twin(recipe, model)
        return by_card_of_patches(recipe, twin if twin is not None else _placed(load_plain(recipe, folder), where))
    if saves_itself(recipe.adapter):
        assert folder is not None
        return by_card(recipe.adapter, by_card_of_patches(recipe, copy.deepcopy(before.plain(where))), files=folder)
    return by_card_of_patches(recipe, _with_peft(before.plain(where), folder))


def _with_peft(base: Any, folder: Path | None) -> Any:
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they warn of shows in the logits, or does not matter
        return PeftModel.from_pretrained(base, str(folder))


@contextmanager
def _moved(recipe: Recipe, model: nn.Module) -> Iterator[None]:
    """Move what an adapter of its own sort trains away from where it begins, and back to the bit.

    An adapter begins by changing nothing, and one that is not saved at all would pass: so what is tried is another.
    Numbers only grow, and stay positive where they must be.
    """
    import torch

    trained = [value for value in model.parameters() if value.requires_grad and saves_itself(recipe.adapter)]
    first = [value.detach().clone() for value in trained]
    try:
        with torch.no_grad():
            for value in trained:
                value.add_(0.05 * torch.rand_like(value) * (1 + value.abs()))
        yield
    finally:
        with torch.no_grad():
            for value, before in zip(trained, first, strict=True):
                value.copy_(before)


def _refuse_brought(recipe: Recipe, before: Before, model: nn.Module) -> None:
    """Raise DiffersError when something is trained that a whole model, loaded again, does not have."""
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    if brought := [name for name in before.brought if name in trained]:
        raise DiffersError(
            f"'{recipe.adapter.type}' has brought {len(brought)} parameters, such as {brought[0]}, and who loads the "
            "whole model does not get them. Without `trains_base`, and with a `loading_code`, it is saved beside its "
            "base"
        )


def _placed(model: Any, where: Any) -> Any:
    return model if getattr(model, "is_quantized", False) else model.to(where)


# --- a whole model: its weights ---------------------------------------------------------------------------------------


def _compare_weights(recipe: Recipe, model: Any, folder: Path) -> None:
    """Compare every tensor of `model` with the one in the files; read one by one, for a second model may not fit."""
    from safetensors import safe_open

    wanted = dict(model.state_dict())
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            for name in wanted.keys() & set(opened.keys()):
                _refuse_other(name, wanted.pop(name), opened.get_tensor(name))
    found = {tensor.data_ptr() for name, tensor in model.state_dict().items() if name not in wanted}
    wanted = {name: tensor for name, tensor in wanted.items() if tensor.data_ptr() not in found}  # tied to another
    if wanted:
        # Experts, for one, are stored under other names than they have in memory.
        loaded = load_base(recipe, folder).state_dict()
        for name, tensor in wanted.items():
            _refuse_other(name, tensor, loaded.get(name))


def _refuse_other(name: str, trained: Tensor, saved: Tensor | None) -> None:
    import torch

    if saved is None:
        raise DiffersError(f"{name} was not saved")
    if saved.shape != trained.shape or not torch.equal(saved.to(trained.dtype), trained.detach().cpu()):
        raise DiffersError(f"{name} was saved with other numbers")


# --- without a trace --------------------------------------------------------------------------------------------------


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Leave the model and the random generators as they are: the run is to be the same whether or not this is done."""
    import numpy as np
    import torch

    modes = [(module, module.training) for module in model.modules()]
    trained: Mapping[Any, bool] = {parameter: parameter.requires_grad for parameter in model.parameters()}
    states = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices):
            torch.manual_seed(0)  # whoever loads it has another seed than the run
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        for module, training in modes:
            module.training = training
        for parameter, requires in trained.items():
            parameter.requires_grad_(requires)
