import zipfile

from sftplug import Exporter, hookimpl


class Archive(Exporter):
    type: str = "beta_zip"
    suffix = ".zip"

    def export(self, model, target):
        with zipfile.ZipFile(target, "w") as archive:
            for name in model.files:
                archive.write(model.folder / name, name)


@hookimpl
def sftplug_exporters():
    return [Archive]
