import json
import sqlite3

from sftplug import RunDirectory, hookimpl


def note(context, what, values):
    """Write to the team's database, beside the runs."""
    if context.folder is not None and context.folder.is_dir():
        with sqlite3.connect(context.folder.parent / "runs.db") as db:
            db.execute("CREATE TABLE IF NOT EXISTS notes (run, what, name, value)")
            rows = [(context.run, what, name, json.dumps(value)) for name, value in values.items()]
            db.executemany("INSERT INTO notes VALUES (?, ?, ?, ?)", rows)


@hookimpl
def sftplug_trainer_created(recipe, context):
    note(context, "recipe", recipe.model_dump(mode="json"))


@hookimpl
def sftplug_evaluation_finished(metrics, context):
    note(context, "metrics", dict(metrics))


@hookimpl
def sftplug_run_finished(result, context):
    note(context, "result", {"loss": result.loss, "tokens": result.tokens})
    samples = RunDirectory.open(context.folder).samples()
    note(context, "samples", {sample["prompt"]: sample["answer"] for sample in samples})
