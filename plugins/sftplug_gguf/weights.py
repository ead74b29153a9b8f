"""The weights of a model folder, one after the other, under llama.cpp's names and as it computes with them."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftplug import ModelError
from sftplug_gguf.families import Family, llama3_factors

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"


@dataclass(frozen=True)
class Weight:
    """A tensor that is read when it is written: the model need not fit into memory."""

    name: str
    """As llama.cpp has it: ``blk.0.attn_q.weight``."""
    shape: tuple[int, ...]
    load: Callable[[], torch.Tensor]


def weights(folder: Path, family: Family, config: PretrainedConfig) -> list[Weight]:
    """Return the weights of the model in `folder`. Raises ModelError for one that llama.cpp has no name for."""
    names = _names(family, config)
    found = []
    for name, weight in _stacked(_stored(folder)).items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue  # llama.cpp takes the embeddings where there is no head
        for part in _parted(name, weight):
            known = names(part.name)
            if known is None:
                raise ModelError(
                    f"llama.cpp has no name for the weight {name} in a model of the family {family.name}: the model is "
                    "not what its configuration says."
                )
            found.append(Weight(known, part.shape, partial(_changed, family, known, part.load, config)))
    factors = llama3_factors(config)
    return found + ([_own("rope_freqs.weight", factors)] if factors else [])


def _names(family: Family, config: PretrainedConfig) -> Callable[[str], str | None]:
    """Return transformers' name -> llama.cpp's; the table is the library's own."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    architecture = next(key for key, name in MODEL_ARCH_NAMES.items() if name == family.name)
    table = get_tensor_name_map(architecture, config.num_hidden_layers)
    return partial(table.get_name, try_suffixes=(".weight", ".bias"))


def _changed(family: Family, name: str, load: Callable[[], torch.Tensor], config: PretrainedConfig) -> torch.Tensor:
    return family.change(name, load(), config)


def _own(name: str, values: list[float]) -> Weight:
    import torch

    return Weight(name, (len(values),), lambda: torch.tensor(values, dtype=torch.float32))


def stored_type(folder: Path) -> str:
    """Return the type of a model's weights by llama.cpp's name: f32, f16 or bf16."""
    import torch

    names = {torch.float16: "f16", torch.bfloat16: "bf16"}
    matrices = (weight for weight in _stored(folder).values() if len(weight.shape) > 1)
    return names.get(next(matrices).load().dtype, "f32")


# --- what is stored ---------------------------------------------------------------------------------------------------


def _stored(folder: Path) -> dict[str, Weight]:
    """Return name -> weight, as the files of a folder have them."""
    from safetensors import safe_open

    index = folder / INDEX
    files = sorted(set(json.loads(index.read_text())["weight_map"].values())) if index.is_file() else [SINGLE]
    stored = {}
    for file in files:
        opened: Any = safe_open(folder / file, "pt")
        for name in opened.keys():  # noqa: SIM118 - it is no dict
            shape = tuple(opened.get_slice(name).get_shape())
            stored[name] = Weight(name, shape, partial(opened.get_tensor, name))
    return stored


EXPERT = re.compile(r"(.*\.experts)\.(\d+)\.(gate_proj|up_proj|down_proj)\.weight")


def _stacked(stored: Mapping[str, Weight]) -> dict[str, Weight]:
    """Put the experts of a layer, stored one by one, into one weight: (experts, out, in)."""
    plain, experts = {}, defaultdict[str, dict[int, Weight]](dict)
    for name, weight in stored.items():
        if found := EXPERT.fullmatch(name):
            experts[f"{found[1]}.{found[3]}.weight"][int(found[2])] = weight
        else:
            plain[name] = weight
    return plain | {name: _stack(name, [of[index] for index in sorted(of)]) for name, of in experts.items()}


def _stack(name: str, parts: list[Weight]) -> Weight:
    def load() -> torch.Tensor:
        import torch

        return torch.stack([part.load() for part in parts])

    return Weight(name, (len(parts), *parts[0].shape), load)


def _parted(name: str, weight: Weight) -> Iterator[Weight]:
    """Yield gate and up of fused experts, (experts, 2 * hidden, in), as two; any other weight as it is."""
    if not name.endswith(".experts.gate_up_proj"):
        yield Weight(f"{name}.weight" if name.endswith(".experts.down_proj") else name, weight.shape, weight.load)
        return
    experts, both, size = weight.shape
    for index, part in enumerate(("gate_proj", "up_proj")):
        rows = slice(index * both // 2, (index + 1) * both // 2)
        yield Weight(f"{name[:-12]}{part}.weight", (experts, both // 2, size), partial(_rows, weight.load, rows))


def _rows(load: Callable[[], torch.Tensor], rows: slice) -> torch.Tensor:
    return load()[:, rows]
