"""What the recipe's patches do to the model, and what the model is without them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from sftplug.libraries.restoring import Snapshot
from sftplug.model.loading import attention_options, load_base, model_config, new_ids, skeleton
from sftplug.model.new_tokens import resize_embeddings
from sftplug.model.own_adapter import by_card
from sftplug.plugin.calls import before_loading, changes_loading, loading_code, patch_problems
from sftplug.plugin.errors import describe, plugin_error

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

    from sftplug.plugin.components import ModelPatch
    from sftplug.recipe.model import Recipe


# --- while a model is in use ------------------------------------------------------------------------------------------


_in_force: list[tuple[Recipe, ExitStack]] = []
"""What has changed the classes of this process, the innermost last."""


@contextmanager
def patches_in_force(recipe: Recipe) -> Iterator[None]:
    """Let the patches change what models are made of, in the order of the recipe, as long as the block lasts."""
    with ExitStack() as stack:
        _in_force.append((recipe, stack))
        stack.callback(_in_force.pop)
        _enter(recipe, stack)
        yield


@contextmanager
def without_patches() -> Iterator[None]:
    """Undo what is in force as long as the block lasts: what is loaded then is what anybody loads."""
    # A copy: to close a stack takes its entry out of the list. The innermost is closed first, as blocks within blocks
    # are.
    held = _in_force[:]
    for _, stack in reversed(held):
        stack.close()
    try:
        yield
    finally:
        for recipe, stack in held:
            _in_force.append((recipe, stack))
            stack.callback(_in_force.pop)
            _enter(recipe, stack)


def _enter(recipe: Recipe, stack: ExitStack) -> None:
    wanted = [patch for patch in recipe.patches if changes_loading(patch)]
    config = model_config(recipe) if wanted else None
    for patch in wanted:
        stack.enter_context(before_loading(patch, config))


# --- what is needed ---------------------------------------------------------------------------------------------------


def for_inference(recipe: Recipe) -> Recipe:
    """Return the recipe with the patches alone without which its model would say something else."""
    return recipe.model_copy(update={"patches": tuple(patch for patch in recipe.patches if patch.changes_logits)})


def plain(recipe: Recipe) -> Recipe:
    """Return the recipe without patches."""
    return recipe.model_copy(update={"patches": ()})


def by_card_of_patches(recipe: Recipe, model: PreTrainedModel) -> PreTrainedModel:
    """Return a plain `model` as the code of the model card makes it: each patch says that of itself."""
    for patch in recipe.patches:
        model = by_card(patch, model)
    return model


def plain_twin(recipe: Recipe, model: PreTrainedModel) -> PreTrainedModel | None:
    """Return a plain model that shares every tensor with the base `model`; None where its modules are others.

    No memory is taken for a second set of weights. Quantized layers are made as weights are loaded, and are no part of
    a skeleton: of these there is no twin.
    """
    if getattr(model, "is_quantized", False):
        return None
    with without_patches():
        twin = skeleton(recipe, **attention_options(recipe))
    # The base has the rows of new tokens by now, and the twin must have a place for them.
    if recipe.model.add_tokens:
        resize_embeddings(twin, new_ids(recipe))
    tensors = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
    for prefix, module in twin.named_modules():
        for held in (module._parameters, module._buffers):
            for name, value in held.items():
                full = f"{prefix}.{name}" if prefix else name
                if value is not None and full not in tensors:
                    return None
                held[name] = None if value is None else tensors[full]
    return twin.eval()


def load_plain(recipe: Recipe, folder: Path | None = None) -> PreTrainedModel:
    """Return the base, or what a run saved in `folder`, as anybody loads it."""
    with without_patches():
        return load_base(plain(recipe), folder)


# --- what can be known before weights are loaded ----------------------------------------------------------------------


def problems_of_patches(recipe: Recipe) -> list[str]:
    """Return a sentence for everything because of which a patch would come to nothing, or its result to nobody.

    What patches change before a model is loaded is changed, and undone. Raises PluginError for one that leaves traces.
    """
    problems = [*_without_code(recipe)]
    model = skeleton(recipe, **attention_options(recipe)) if recipe.patches else None
    for index, patch in enumerate(recipe.patches):
        assert model is not None
        problems += [f"patches[{index}]: {text}" for text in patch_problems(patch, model)]
    if not problems:
        _refuse_traces(recipe)
    return problems


def _without_code(recipe: Recipe) -> Iterator[str]:
    for index, patch in enumerate(recipe.patches):
        if patch.changes_logits and not loading_code(patch).strip():
            yield (
                f"patches[{index}]: {describe(patch)} changes what the model computes (`changes_logits`), and has no "
                "`loading_code`: who loads the result by its model card would get another model than was trained. Let "
                "that return the Python that does to a loaded `model` what the patch does, or leave the patch out."
            )


def _refuse_traces(recipe: Recipe) -> None:
    """Raise PluginError when a patch does not undo what it has changed."""
    for patch in recipe.patches:
        if changes_loading(patch) and (left := traces(recipe, patch)):
            text = f"must undo what it changes, and leaves {left[0]} changed: `sftplug.restoring` puts it back"
            raise plugin_error(patch, "before_loading", text)


def traces(recipe: Recipe, patch: ModelPatch) -> list[str]:
    """Return the full names of what a patch changes before loading and leaves changed, in what the model is made of."""
    config = model_config(recipe)
    skeleton(recipe, **attention_options(recipe))  # imports the model's classes
    before = Snapshot(type(config).__module__.rpartition(".")[0], *_MADE_OF)
    with before_loading(patch, config):
        pass
    return before.changed()


_MADE_OF = ("transformers.modeling_utils", "transformers.masking_utils", "torch.nn")
"""What models are made of beside their own classes."""
