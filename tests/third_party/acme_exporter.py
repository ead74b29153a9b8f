from sftplug import Exporter, hookimpl


class Listing(Exporter):
    type: str = "listing"
    suffix = ".txt"

    def export(self, model, target):
        target.write_text("\n".join(model.files))


@hookimpl
def sftplug_exporters():
    return [Listing]
