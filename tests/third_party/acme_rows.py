from sftplug import Made, StreamProcessor, hookimpl


class Threads(StreamProcessor):
    """A table of messages, each with its parent: every way from a root to a leaf becomes a dialogue."""

    type: str = "threads"
    holds_rows = True

    def stream(self, rows, context):
        threads = {None: []}
        for row in rows:
            threads[row.data["id"]] = [*threads[row.data["parent"]], row]
        parents = {row.data["parent"] for thread in threads.values() for row in thread}
        for thread in [thread for leaf, thread in threads.items() if leaf not in parents]:
            yield Made({"dialogue": [row.data["text"] for row in thread]}, of=thread)


@hookimpl
def sftplug_row_processors():
    return [Threads]
