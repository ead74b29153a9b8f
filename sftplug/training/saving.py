"""What a run saves: the model or adapter, and what inference needs beside it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftplug.model.processor import copy_processor
from sftplug.util.processes import is_main

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sftplug.data.prepare import Prepared
    from sftplug.training.trainer import SftplugTrainer


def save(trainer: SftplugTrainer, prepared: Prepared, folder: Path) -> None:
    """Write the model or adapter to `folder`, and what inference needs beside it."""
    trainer.save_model(str(folder))
    if not is_main():
        return
    (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle, of what recipe.yaml says
    _generation_config(trainer.model, prepared).save_pretrained(str(folder))
    if not hasattr(trainer.model, "get_base_model") and trainer.write_adapter is None:
        copy_processor(trainer.model, folder)


def save_beside(trainer: SftplugTrainer, prepared: Prepared, folder: Path) -> None:
    """Write what inference needs beside the weights of a whole model."""
    prepared.tokenizer.save_pretrained(str(folder))
    _generation_config(trainer.model, prepared).save_pretrained(str(folder))


def _generation_config(model: PreTrainedModel, prepared: Prepared) -> Any:
    """Return the generation configuration, with every stop that was trained among its end tokens."""
    tokenizer, config = prepared.tokenizer, copy.deepcopy(model.generation_config)
    known = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    # Only special and added tokens: where turns end in a line break, an answer would end at its first line.
    stops = [stop for stop in prepared.ledger.stop_ids if stop in special]
    config.eos_token_id = list(dict.fromkeys([*stops, *(end for end in known if end is not None)])) or None
    config.pad_token_id = tokenizer.pad_token_id
    return config
