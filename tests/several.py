"""Train recipe files one after the other in the processes that a launcher has started; the imports are paid for once.

Usage: torchrun --nproc_per_node 2 several.py RECIPE …
"""

import json
import os
import sys
import traceback
from pathlib import Path

from sftplug.data.prepare import prepare
from sftplug.errors import SftplugError
from sftplug.models import end_tokens, load_tokenizer
from sftplug.processes import leave, rank
from sftplug.quiet import quiet_libraries
from sftplug.recipe import load_recipe
from sftplug.run import begin
from sftplug.training import join, train


def run(file):
    loaded = load_recipe(str(file))
    join(loaded.recipe)
    with begin(loaded) as attempt:
        tokenizer = load_tokenizer(loaded.recipe)
        prepared = prepare(loaded.recipe, tokenizer, end_tokens=end_tokens(loaded.recipe, tokenizer))
        return train(loaded, prepared, attempt)


quiet_libraries()
environment = dict(os.environ)
for file in map(Path, sys.argv[1:]):
    # What a trainer leaves there would speak to the next one.
    os.environ.clear()
    os.environ.update(environment)
    try:
        result = run(file)
        said = {"loss": result.loss, "tokens": result.tokens}
    except SftplugError as error:
        said = {"error": str(error), "exit_code": error.exit_code}
    except Exception as error:  # noqa: BLE001 - the test shows it
        said = {"crash": "".join(traceback.format_exception(error))}
    file.with_suffix(f".{rank()}.json").write_text(json.dumps(said))
leave()
