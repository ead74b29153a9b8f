"""Train recipe files one after the other in two processes, as a launcher would start them.

The processes are forked from one that has imported the libraries.
"""

import json
import os
import traceback
from pathlib import Path

from run.children import CONTEXT


def train_all(files, port):
    """Train `files` in two processes that meet at `port`; return what each said of each, by file."""
    files = list(map(Path, files))
    processes = [CONTEXT.Process(target=_worker, args=(rank, port, list(map(str, files)))) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=300)
        process.kill()  # does nothing to one that has ended
    assert [process.exitcode for process in processes] == [0, 0]
    return {file.stem: [json.loads(file.with_suffix(f".{rank}.json").read_text()) for rank in (0, 1)] for file in files}


def _worker(rank, port, files):
    from sftplug.errors import SftplugError
    from sftplug.processes import leave
    from sftplug.quiet import quiet_libraries

    number = str(rank)
    os.environ |= {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "DS_ACCELERATOR": "cpu"}
    quiet_libraries()
    environment = dict(os.environ)
    for file in map(Path, files):
        # What a trainer leaves there would speak to the next one.
        os.environ.clear()
        os.environ.update(environment)
        try:
            result = _run(file)
            said = {"loss": result.loss, "tokens": result.tokens}
        except SftplugError as error:
            said = {"error": str(error), "exit_code": error.exit_code}
        except Exception as error:  # noqa: BLE001 - the test shows it
            said = {"crash": "".join(traceback.format_exception(error))}
        file.with_suffix(f".{rank}.json").write_text(json.dumps(said))
    leave()


def _run(file):
    from sftplug.data.prepare import prepare
    from sftplug.models import end_tokens, load_tokenizer
    from sftplug.recipe import load_recipe
    from sftplug.run import begin
    from sftplug.training import join, train

    loaded = load_recipe(str(file))
    join(loaded.recipe)
    with begin(loaded) as attempt:
        tokenizer = load_tokenizer(loaded.recipe)
        prepared = prepare(loaded.recipe, tokenizer, end_tokens=end_tokens(loaded.recipe, tokenizer))
        return train(loaded, prepared, attempt)
