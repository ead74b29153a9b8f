from sftplug import Made, StreamProcessor, hookimpl

ROLES = {"prompter": "user", "assistant": "assistant"}


class Trees(StreamProcessor):
    """Of a table of messages with parents, as OpenAssistant has them: each path from a root to its best-ranked leaf."""

    type: str = "beta_oasst"
    holds_rows = True

    def stream(self, rows, context):
        children = {}
        for row in rows:
            children.setdefault(row.data["parent_id"], []).append(row)
        for root in children.get(None, []):
            path, aside = [root], []
            while replies := sorted(children.get(path[-1].data["message_id"], []), key=lambda row: row.data["rank"]):
                path.append(replies[0])
                aside += self.below(replies[1:], children)
            messages = [{"role": ROLES[row.data["role"]], "content": row.data["text"]} for row in path]
            yield Made({"messages": messages}, of=[*path, *aside])

    def below(self, rows, children):
        """Return the rows and all their descendants: no row is forgotten."""
        return [one for row in rows for one in (row, *self.below(children.get(row.data["message_id"], []), children))]


@hookimpl
def sftplug_row_processors():
    return [Trees]
