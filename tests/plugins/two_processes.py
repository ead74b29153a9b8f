"""Train a recipe in this process, one of several, and print what the first one logs."""

import json
import os
import sys

import sftplug
from sftplug.libraries.logging import quiet_libraries
from sftplug.model.loading import load_model
from sftplug.training.train import make_trainer

quiet_libraries()
loaded = sftplug.load(sys.argv[1], *sys.argv[2:])
trainer = make_trainer(loaded.recipe, load_model(loaded.recipe), sftplug.prepare(loaded))
trainer.train()
if int(os.environ.get("RANK", "0")) == 0:
    print(json.dumps([entry for entry in trainer.state.log_history if "loss" in entry or "eval_loss" in entry]))
