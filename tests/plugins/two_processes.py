"""Train a recipe in this process, one of several, and print what the first one logs."""

import json
import os
import sys

from sftplug.data.prepare import prepare
from sftplug.libraries.logging import quiet_libraries
from sftplug.model.loading import load_model, load_tokenizer
from sftplug.recipe import load_recipe
from sftplug.training.train import make_trainer

quiet_libraries()
recipe = load_recipe(sys.argv[1], sys.argv[2:]).recipe
trainer = make_trainer(recipe, load_model(recipe), prepare(recipe, load_tokenizer(recipe)))
trainer.train()
if int(os.environ.get("RANK", "0")) == 0:
    print(json.dumps([entry for entry in trainer.state.log_history if "loss" in entry or "eval_loss" in entry]))
