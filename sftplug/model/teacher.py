"""A second model beside the one that is trained: the teacher whose logits a loss asks for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sftplug.errors import ModelError
from sftplug.model.loading import check_files, check_names, check_positions, load_base, load_tokenizer
from sftplug.model.packing_check import check_isolation
from sftplug.plugin.calls import teacher_of
from sftplug.recipe.adapter_base import is_adapter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PreTrainedModel

    from sftplug.recipe.model import Recipe


def with_teacher_as_model(recipe: Recipe) -> Recipe | None:
    """Return `recipe` with the teacher in the place of its model, so that it is loaded as any model is; None for none.

    It gets the attention that the recipe asks for, because it sees the same packed rows, and no patches: they are of
    the model that is trained.
    """
    from sftplug.recipe.model import ModelSection

    teacher = teacher_of(recipe.loss)
    if teacher is None:
        return None
    name, revision = (teacher, "") if Path(teacher).exists() else teacher.rpartition("@")[::2]
    if not name:  # without an @
        name, revision = revision, ""
    attention = recipe.model.attn_implementation
    model = ModelSection(name_or_path=name, revision=revision or None, attn_implementation=attention)
    return recipe.model_copy(update={"model": model, "patches": ()})


def check_teacher(recipe: Recipe) -> None:
    """Raise ModelError for a teacher whose files are wrong, or which reads other tokens than the model."""
    other = with_teacher_as_model(recipe)
    if other is None:
        return
    _refuse_no_model(recipe, Path(str(other.model.name_or_path)))
    try:
        check_files(other)
        check_names(other)
        theirs = load_tokenizer(other).get_vocab()
    except ModelError as error:
        raise _of_teacher(recipe, error) from error
    difference = _first_difference(load_tokenizer(recipe).get_vocab(), theirs)
    if difference is not None:
        raise ModelError(
            f"loss: the teacher of '{recipe.loss.type}', {other.model.name_or_path}, reads other tokens than the "
            f"model: {difference}. Choose a teacher with the tokenizer of the model, such as a larger model of its "
            "family, or another loss."
        )


def _refuse_no_model(recipe: Recipe, folder: Path) -> None:
    """Raise ModelError for a folder that is not there, and for an adapter, of which a teacher can be made."""
    whose = f"loss: the teacher of '{recipe.loss.type}', {folder},"
    if folder.is_absolute() and not folder.exists():
        raise ModelError(f"{whose} does not exist.")
    if is_adapter(folder):
        merged = f"{folder}-merged"
        raise ModelError(
            f"{whose} is an adapter, and a teacher is a whole model: `sftplug merge {folder} --output {merged}`, then "
            f"name {merged} as the teacher."
        )


def _of_teacher(recipe: Recipe, error: ModelError) -> ModelError:
    """Return what is said of any model as said of the teacher."""
    return ModelError(f"loss: the teacher of '{recipe.loss.type}': {str(error).removeprefix('model: ')}")


def _first_difference(ours: Mapping[str, int], theirs: Mapping[str, int]) -> str | None:
    """Return in what two vocabularies differ, at the lowest id; None where they are the same."""
    differ = {*ours.items()} ^ {*theirs.items()}
    if not differ:
        return None
    _, token = min((index, token) for token, index in differ)
    here, there = (f"is {known[token]}" if token in known else "is none" for known in (ours, theirs))
    return f"{token!r} {here} in the model and {there} in the teacher"


def check_teacher_positions(recipe: Recipe, longest: int) -> None:
    """Raise ModelError when the longest row has more tokens than the teacher of the loss has positions for."""
    other = with_teacher_as_model(recipe)
    if other is None:
        return
    try:
        check_positions(other, longest)
    except ModelError as error:
        raise _of_teacher(recipe, error) from error


def load_teacher(recipe: Recipe, device: object, *, packed: bool, marked: bool) -> PreTrainedModel | None:
    """Return the teacher of the recipe's loss on `device`, in the dtype that is computed in; None without one.

    `packed` says that rows hold several documents: then it is proven that it keeps them apart, with what batches say
    of them (`marked`). Raises ModelError when it does not, or cannot be had.
    """
    other = with_teacher_as_model(recipe)
    if other is None:
        return None
    try:
        model = load_base(other, original=True)
        if packed:
            check_isolation(model, marked=marked)
    except ModelError as error:
        raise _of_teacher(recipe, error) from error
    model.requires_grad_(False)
    model.eval()
    placed: PreTrainedModel = model.to(device)
    return placed
