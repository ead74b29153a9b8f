"""The base model: its folder, its tokenizer, its skeleton without weights, and the model itself."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftplug.errors import ModelError
from sftplug.libraries.logging import quiet_libraries, quiet_progress_bars
from sftplug.model.architectures import (
    NO_MODEL,
    auto_class,
    refuse_endless,
    refuse_other_kinds,
    refuse_unknown_quantization,
)
from sftplug.model.folders import refuse_adapter_on_hub, refuse_no_model
from sftplug.model.generation import drop_unused
from sftplug.model.new_tokens import add_tokens, refuse_untrained, resize_embeddings, train_new_embeddings
from sftplug.model.remote_code import code_options, refuse_kernels, untrusted
from sftplug.model.weight_files import (
    PICKLED,
    check_weights,
    damaged_json,
    foresee_weights,
    headers,
    refuse_other_weights,
    unlike_experts,
    weights_named_in,
)
from sftplug.plugin.calls import after_loading, build_model, load_kwargs, model_problems, peft_config, prepare_model
from sftplug.storage.kept import KeptFolders

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

    from sftplug.plugin.components import ModelBuilder
    from sftplug.recipe.model import Recipe


# --- where it is ------------------------------------------------------------------------------------------------------


def base_model_path(recipe: Recipe) -> str:
    """Return the model's name or folder; one that is built on the spot, or has an adapter merged into it, is made once
    and then kept.

    Raises ModelError for a folder or file that is not a model: an adapter, a run without a result, rows, a GGUF file.
    """
    if recipe.model.merge_adapter:
        from sftplug.model.merging import merged_base  # which loads the base without it

        return str(merged_base(recipe))
    if recipe.model.build is None:
        refuse_no_model(str(recipe.model.name_or_path), tokenizer_does=True)
        return str(recipe.model.name_or_path)
    return str(_built(recipe.model.build))


def is_cached(recipe: Recipe) -> bool:
    """Whether the base is made here, so that it lies in another folder on each machine."""
    return recipe.model.build is not None or recipe.model.merge_adapter


def cache_folder() -> Path:
    """Return where built models are kept: ``$SFTPLUG_CACHE``, else the user's cache folder."""
    if own := os.environ.get("SFTPLUG_CACHE"):  # an empty one is none, and not the working folder
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sftplug"


def _built(builder: ModelBuilder) -> Path:
    one = "the model that is built on the spot"
    kept = KeptFolders(cache_folder() / "models", "built models", ModelError, one=one, read_once=True)

    def make(folder: Path) -> None:
        quiet_libraries()
        quiet_progress_bars()
        build_model(builder, folder)

    place, _ = kept.get(f"{builder.type}-{_fingerprint(builder)}", make)
    return place


def _fingerprint(builder: ModelBuilder) -> str:
    """Return a hash over the options, the builder's own code and the libraries that shape the weights."""
    source = Path(inspect.getfile(type(builder)))
    # A builder in a package may use its neighbours there, so they count; one in a plugin file has none.
    files = sorted(source.parent.glob("*.py")) if (source.parent / "__init__.py").is_file() else [source]
    digest = hashlib.sha256(json.dumps(builder.model_dump(mode="json"), sort_keys=True).encode())
    for file in files:
        digest.update(file.read_bytes())
    digest.update(f"{version('torch')} {version('transformers')} {version('tokenizers')}".encode())
    return digest.hexdigest()[:16]


def _options(recipe: Recipe) -> dict[str, Any]:
    return {"revision": recipe.model.revision or "main", **code_options(recipe.model)}


def _described_at(recipe: Recipe) -> str:
    """Return where the base's configuration is: no adapter need be merged to know it."""
    return str(recipe.model.name_or_path) if recipe.model.merge_adapter else base_model_path(recipe)


def _beside_adapter(recipe: Recipe, *names: str) -> Path | None:
    """Return the folder of the adapter that the model comes with, if one of the files `names` lies in it; else None."""
    folder = recipe.model.adapter
    there = folder is not None and any((Path(folder) / name).is_file() for name in names)
    return Path(str(folder)) if there else None


# --- what can be had without weights ----------------------------------------------------------------------------------


_GENERATION = "generation_config.json"


def load_tokenizer(recipe: Recipe) -> PreTrainedTokenizerBase:
    """Return the model's tokenizer, with a padding token. Raises ModelError when it cannot be had."""
    quiet_libraries()
    from transformers import AutoTokenizer

    # What an adapter was trained with lies beside it: the tokenizer, and in it the chat template.
    beside = None if recipe.model.add_tokens else _beside_adapter(recipe, "tokenizer.json", "tokenizer_config.json")
    path = str(beside or _described_at(recipe))
    try:
        options = _options(recipe) if beside is None else code_options(recipe.model, beside)
        tokenizer = AutoTokenizer.from_pretrained(path, **options)
    except Exception as error:  # the tokenizers library raises nothing narrower for a damaged file
        code = untrusted(recipe.model, path, error)
        # What helps most comes first: code that is not allowed to run, a file that is damaged, and only then what a
        # library said.
        why = code or damaged_json(Path(path)) or f"{error}{_hint_of_folder(recipe)}"
        raise ModelError(f"the tokenizer of {path} cannot be loaded: {why}") from error
    if fault := _unusable(tokenizer):
        raise ModelError(f"the tokenizer of {path} cannot be used: {fault}. Get the model once more.")
    add_tokens(tokenizer, recipe.model.add_tokens)
    if tokenizer.pad_token is None:
        # Padding is told from text by its position, never by its id, so any token serves.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    return tokenizer


def _unusable(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return what transformers takes in a tokenizer's files and nothing can work with; None if there is nothing."""
    longest = tokenizer.model_max_length
    return None if isinstance(longest, int | float) else f"its `model_max_length` is {longest!r}, which is not a number"


def generation_config(recipe: Recipe) -> GenerationConfig | None:
    """Return the model's generation configuration as its author wrote it; None if it has none of its own.

    Raises ModelError for one that cannot be read: the model would not know where its answers end.
    """
    from transformers import GenerationConfig

    path = str(_beside_adapter(recipe, _GENERATION) or _described_at(recipe))
    try:
        return GenerationConfig.from_pretrained(path, revision=recipe.model.revision or "main")
    except (OSError, ValueError, RecursionError, *NO_MODEL) as error:
        if not (Path(path) / _GENERATION).exists() and isinstance(error, OSError):
            return None
        why = damaged_json(Path(path)) or f"model: its generation configuration ({path}) cannot be loaded: {error}"
        raise ModelError(why) from error


def end_tokens(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> frozenset[str]:
    """Return the texts of the tokens that end generation, if the model's generation configuration lists them."""
    config = generation_config(recipe)
    if config is None:
        return frozenset()
    ids = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    # One id says no more than the tokenizer does; a list was written by someone who knew every end of a turn.
    return frozenset(tokenizer.convert_ids_to_tokens(ids)) if len(ids) > 1 else frozenset()


def skeleton(recipe: Recipe, **options: Any) -> PreTrainedModel:
    """Return the model without weights: its modules and shapes, on the meta device.

    `options` go to ``from_config``: ``dtype``, ``attn_implementation``. Raises ModelError when the configuration
    cannot be had.
    """
    quiet_libraries()
    import torch

    config = model_config(recipe)
    if not options.get("attn_implementation"):
        refuse_kernels(_described_at(recipe), config)
    if _brings_code(config):
        options |= code_options(recipe.model)
    else:
        refuse_other_kinds(config)
    refuse_endless(config)
    try:
        # There a tensor has a shape and no memory: a model of 70 billion parameters is made in seconds.
        with torch.device("meta"):
            model: PreTrainedModel = auto_class(config).from_config(config, **options)
            return model
    except NO_MODEL as error:
        why = f"{type(error).__name__}: {error}"
        raise ModelError(f"the numbers in the configuration of {_described_at(recipe)} make no model: {why}") from error


def _brings_code(config: Any) -> bool:
    """Whether the model's code is still to be had from where its configuration says; once it is, its class is known."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    kind = type(config)
    known = kind in MODEL_FOR_CAUSAL_LM_MAPPING and MODEL_FOR_CAUSAL_LM_MAPPING[kind].__module__
    named = "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    return named and (not known or str(known).startswith("transformers."))


def model_config(recipe: Recipe) -> Any:
    """Return the model's configuration. Raises ModelError when it cannot be had."""
    quiet_libraries()
    return _configuration(recipe, _described_at(recipe))


def _configuration(recipe: Recipe, path: str) -> Any:
    from transformers import AutoConfig

    refuse_no_model(path)
    options = _options(recipe) if path == _described_at(recipe) else code_options(recipe.model, path)
    try:
        return AutoConfig.from_pretrained(path, **options)
    except Exception as error:  # whatever a library says of a stranger's file: it has errors of its own for each field
        refuse_adapter_on_hub(path, recipe.model.revision)
        code = untrusted(recipe.model, path, error)
        why = code or damaged_json(Path(path)) or f"{error}{_hint_of_folder(recipe)}"
        raise ModelError(f"the configuration of {path} cannot be loaded: {why}") from error


def _hint_of_folder(recipe: Recipe) -> str:
    """A name without ``./`` is a name on the Hub, which someone who means a folder may not know."""
    name = recipe.model.name_or_path or ""
    if not name or name.startswith(("/", ".")):
        return ""
    there = "is one of that name" if Path(name).is_dir() else "is none of that name"
    return f"\n'{name}' is looked for on the Hub. A folder is written `./{name}`; there {there} here."


def check_model(recipe: Recipe) -> list[str]:
    """Return a sentence for everything in the recipe that does not fit the model's modules."""
    attention = recipe.model.attn_implementation
    try:
        model = skeleton(recipe, **attention_options(recipe))
    except (ValueError, ImportError) as error:  # transformers' own word on what this model and machine can do
        what = f"model.attn_implementation: {attention}" if attention else "the model cannot be made"
        raise ModelError(f"{what}: {error}") from error
    return [*model_problems(recipe.adapter, model), *_untrained_tokens(recipe)]


def _untrained_tokens(recipe: Recipe) -> list[str]:
    """Return a sentence when the recipe adds tokens and the adapter would not train their rows."""
    if not recipe.model.add_tokens:
        return []
    model, config = skeleton(recipe, **attention_options(recipe)), peft_config(recipe.adapter)
    try:
        if config is not None:
            # Any id will do: whether rows can be trained at all does not depend on which.
            train_new_embeddings(config, model, [0])
        else:
            prepare_model(recipe.adapter, model)
            refuse_untrained(recipe.adapter.type, model)
    except ModelError as error:
        return [str(error)]
    return []


def check_positions(recipe: Recipe, longest: int) -> None:
    """Raise ModelError when the longest document has more tokens than the model has, or knows, positions for."""
    positions = getattr(model_config(recipe).get_text_config(), "max_position_embeddings", None)
    if positions is not None and longest > positions:
        raise ModelError(
            f"the longest row has {longest:,} tokens, and the model was made for {positions:,} "
            f"(`max_position_embeddings` of its configuration). Set `data.max_length: {positions}`."
        )


# --- with weights -----------------------------------------------------------------------------------------------------


def load_model(recipe: Recipe) -> PreTrainedModel:
    """Return the base model in the numbers that the recipe's quantization says, as the adapter has prepared it.

    Raises ModelError when the weights cannot be had, or when the adapter does not fit the model.
    """
    model = load_fitting_base(recipe)
    prepare_model(recipe.adapter, model)
    return model


def load_fitting_base(recipe: Recipe, **sharding: Any) -> PreTrainedModel:
    """Return the base model, once the adapter is known to fit it.

    `sharding` are more arguments of ``from_pretrained``, which split it between processes. Raises what `load_model`
    does.
    """
    quiet_libraries()
    problems = check_model(recipe)
    if problems:
        raise ModelError("the adapter does not fit the model:\n" + "\n".join(f"  {text}" for text in problems))
    return load_base(recipe, **sharding)


def check_files(recipe: Recipe, folder: Path | None = None) -> None:
    """Raise ModelError for what can be known of the files of weights without loading them.

    The base's, or those of what a run saved in `folder`: damaged, missing, pickled or elsewhere; and a configuration
    that names a kernel on the Hub, or a quantization that nobody knows.
    """
    place = folder or Path(_described_at(recipe))
    config = _configuration(recipe, str(place))
    if recipe.model.attn_implementation is None:
        refuse_kernels(str(place), config)
    refuse_unknown_quantization(str(place), config)
    if place.is_dir():
        check_weights(place, named=weights_named_in(config), pickled=not recipe.model.use_safetensors)


def check_names(recipe: Recipe) -> None:
    """Raise ModelError when the files of the base hold other weights than the model has, or such of other shapes.

    Known where they are safetensors in a folder, and not quantized already: what a quantized model is put together
    from is known when it is loaded.
    """
    quiet_progress_bars()
    place, config = Path(_described_at(recipe)), model_config(recipe)
    if place.is_dir() and recipe.model.use_safetensors and getattr(config, "quantization_config", None) is None:
        foresee_weights(skeleton(recipe, **attention_options(recipe)), place, weights_named_in(config))


def attention_options(recipe: Recipe) -> dict[str, str]:
    """Return the argument of `skeleton` that says which attention the recipe asks for, in place of the model's own."""
    named = recipe.model.attn_implementation
    return {"attn_implementation": named} if named else {}


def load_base(
    recipe: Recipe, folder: Path | None = None, *, original: bool = False, **sharding: Any
) -> PreTrainedModel:
    """Return the model in the numbers that the recipe's quantization says: the base, or what a run saved in `folder`.

    `original` leaves the base unquantized, in the dtype that the quantization computes in. The recipe's patches are
    applied; what they change before a model is loaded is in force in `patches_in_force` only. Raises ModelError when
    the weights cannot be had.
    """
    quiet_libraries()
    quiet_progress_bars()
    made_here = Path(base_model_path(recipe)) if recipe.model.merge_adapter else None
    folder_of_code = folder or made_here
    options = _options(recipe) if folder_of_code is None else code_options(recipe.model, folder_of_code)
    options |= attention_options(recipe)
    only = recipe.model.use_safetensors
    numbers = load_kwargs(recipe.quantization)
    if original:
        numbers = {"dtype": numbers.get("dtype", "auto")}
    path, arguments = str(folder or base_model_path(recipe)), {**numbers, **sharding}
    check_files(recipe, folder)
    try:
        # What has another shape is told with the rest, by name.
        told = {"output_loading_info": True, "ignore_mismatched_sizes": True}
        model, info = auto_class(_configuration(recipe, path)).from_pretrained(
            path, **options, use_safetensors=only or None, **told, **arguments
        )
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        lacks = only and not Path(path).is_dir() and isinstance(error, OSError) and ".safetensors" in str(error)
        hint = f" {PICKLED}" if lacks else unlike_experts(headers(Path(path)))
        raise ModelError(f"the model {path} cannot be loaded as {recipe.quantization.type}: {error}{hint}") from error
    refuse_other_weights(path, info)
    if folder is None and _beside_adapter(recipe, _GENERATION):
        model.generation_config = generation_config(recipe)
    drop_unused(model.generation_config)
    # What a run has saved has the new rows already.
    if recipe.model.add_tokens and folder is None:
        resize_embeddings(model, new_ids(recipe))
    if not original:
        prepare_model(recipe.quantization, model)
    for patch in recipe.patches:
        model = after_loading(patch, model)
    return model


def new_ids(recipe: Recipe) -> list[int]:
    """Return the ids of the tokens that the recipe adds."""
    ids: list[int] = load_tokenizer(recipe).convert_tokens_to_ids(list(recipe.model.add_tokens))
    return ids
