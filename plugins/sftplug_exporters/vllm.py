"""A folder for vLLM, and the command that serves it as it was trained."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from sftplug import Exporter, FinishedModel, ModelError, Recipe

SCRIPT, TEMPLATE, ADAPTER = "serve.sh", "chat_template.jinja", "adapter_config.json"
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values of vLLM's ``--max-lora-rank``."""
_MERGED = "Set `merged: true`: the adapter becomes part of the weights."


class VllmExport(Exporter):
    """Write a folder, and a script that serves it with vLLM: with the template, the stops and the sampling of training.

    An adapter is served on its base, beside others if need be; with ``merged: true``, or after a whole fine-tune, the
    folder is a model by itself. The flags are those of https://docs.vllm.ai/en/latest/cli/serve/.
    """

    type: Literal["vllm"] = "vllm"
    merged: bool = False
    """Write a model that needs no adapter."""

    @property
    def needs_merged(self) -> bool:
        """Whether the option says so."""
        return self.merged

    def check(self, recipe: Recipe) -> Iterator[str]:
        """Say what of an adapter vLLM will not take, as far as the recipe knows."""
        if not self.merged and recipe.model.build is not None and recipe.adapter.type != "full":
            yield f"the base is built by `model.build`, and vLLM loads the base by its name. {_MERGED}"
        if not self.merged and recipe.model.add_tokens:
            yield f"`model.add_tokens` trains new rows of the embeddings, and vLLM takes no adapter with any. {_MERGED}"

    def export(self, model: FinishedModel, target: Path) -> None:
        """Copy the files, and write the script. Raises ModelError for an adapter that vLLM cannot serve."""
        is_adapter = model.is_adapter and not self.merged
        if is_adapter:
            refuse_unserved(model)
        folder = model.merged() if self.merged else model.folder
        names = model.files if folder == model.folder else sorted(file.name for file in folder.iterdir())
        for name in names:
            if (folder / name).is_file() and not name.startswith("."):
                shutil.copyfile(folder / name, target / name)
        script = target / SCRIPT
        script.write_text(_script(model, target, is_adapter), encoding="utf-8")
        script.chmod(0o755)


# --- what is served ---------------------------------------------------------------------------------------------------


def refuse_unserved(model: FinishedModel) -> None:
    """Raise ModelError with every reason for which vLLM would refuse an adapter, or serve another than was trained."""
    file = model.folder / ADAPTER
    if not file.is_file():
        raise ModelError(f"exporter vllm: '{model.recipe.adapter.type}' is not saved as PEFT's LoRA. {_MERGED}")
    reasons = [*_unserved(json.loads(file.read_text(encoding="utf-8")))]
    if model.recipe.model.build is not None:
        reasons.append("its base is built on the spot, and vLLM loads the base by its name")
    if reasons:
        raise ModelError(f"exporter vllm: vLLM cannot serve this adapter: {'; '.join(reasons)}. {_MERGED}")


_OPTIONS = {
    "use_dora": "it is a DoRA",
    "modules_to_save": "it has whole modules beside its updates",
    "trainable_token_indices": "it has rows of the embeddings of its own",
    "lora_bias": "it has biases",
    "alora_invocation_tokens": "it is an activated LoRA",
    "layer_replication": "it repeats layers",
    "use_bdlora": "its matrices are block-diagonal",
    "use_qalora": "it is a QA-LoRA",
}
"""Option of PEFT's LoRA that vLLM's loader (``vllm/lora/peft_helper.py``, 0.32) refuses, or does not read -> why."""
_STARTS = (True, False, "gaussian", "eva", "orthogonal", "mica", "lora_ga")
"""Values of ``init_lora_weights`` that leave the base as it is; the others, such as PiSSA, change its weights."""
_PLACES = {
    r"embed": "it adapts embeddings",
    r"lm_head": "it adapts the head",
    r"vision|visual|image": "it adapts the vision tower",
    r"\.(gate|router)$": "it adapts routers",
}
"""Names of modules on which vLLM takes no adapter -> why."""


def _unserved(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield what vLLM would refuse of an adapter, or not serve."""
    if config["peft_type"] != "LORA":
        yield f"it is a {config['peft_type']}, and vLLM knows LoRA"
        return
    yield from (why for option, why in _OPTIONS.items() if config.get(option))
    if config.get("bias", "none") != "none":
        yield "it trains biases of the base"
    targets = config.get("target_modules") or ()
    places = [targets] if isinstance(targets, str) else targets
    yield from (why for pattern, why in _PLACES.items() if any(re.search(pattern, place) for place in places))
    if config.get("init_lora_weights", True) not in _STARTS:
        yield f"it begins as {config['init_lora_weights']}, which changes the base's own weights"
    if rank_of(config) > RANKS[-1]:
        yield f"its rank is {rank_of(config)}, and vLLM's largest {RANKS[-1]}"


def rank_of(config: Mapping[str, Any]) -> int:
    """Return the largest rank of an adapter's modules."""
    return int(max([config["r"], *(config.get("rank_pattern") or {}).values()]))


def _script(model: FinishedModel, target: Path, is_adapter: bool) -> str:
    """Return the text of the script."""
    name = shlex.quote(re.sub(r"[^A-Za-z0-9._-]", "-", model.folder.name))
    said, flags = [], []
    if is_adapter:
        rank = rank_of(json.loads((target / ADAPTER).read_text(encoding="utf-8")))
        base = model.recipe.model
        served = shlex.quote(str(base.name_or_path))
        flags += [f"--revision {shlex.quote(base.revision)}"] if base.revision else []
        flags += ['--tokenizer "$here"', "--enable-lora", f'--lora-modules {name}="$here"']
        flags.append(f"--max-lora-rank {next(most for most in RANKS if most >= rank)}")
        if model.recipe.quantization.bits < 16:
            said.append(
                f"# The adapter was trained on the base in {model.recipe.quantization.type}; here it is added to the\n"
                "# base as it was before, so answers differ a little. `merged=true` keeps what was trained."
            )
    else:
        served, flags = '"$here"', [f"--served-model-name {name}"]
    flags += [f'--chat-template "$here/{TEMPLATE}"'] if (target / TEMPLATE).is_file() else []
    flags.append('--generation-config "$here"')
    flags += ["--trust-remote-code"] if model.recipe.model.trust_remote_code else []
    command = " \\\n    ".join([f"exec vllm serve {served}", *flags, '"$@"'])
    lines = [
        "#!/bin/sh",
        "# Serves the model with the template, the stops and the sampling that it was trained with.",
        *said,
    ]
    return "\n".join([*lines, 'here=$(cd "$(dirname "$0")" && pwd)', command]) + "\n"
