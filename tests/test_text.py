"""Files that cannot be read as text are named, with what is wrong with them."""

import pytest
from conftest import rows

from sftplug import DataError, ModelError, read_text


def test_text_is_read_or_the_file_is_named(tmp_path):
    file = tmp_path / "note.md"
    file.write_text("Käfer", encoding="utf-8")
    assert read_text(file) == read_text(str(file)) == "Käfer"
    file.write_bytes("Käfer".encode("latin-1"))
    with pytest.raises(DataError) as caught:
        read_text(file)
    assert str(caught.value) == f"{file}: is not UTF-8 text: invalid continuation byte at byte 1. Convert it first."
    with pytest.raises(DataError) as caught:
        read_text(tmp_path / "gone.md")
    assert str(caught.value) == f"{tmp_path / 'gone.md'}: cannot be read: No such file or directory"


def test_a_template_that_is_no_text_is_named(recipe_file, prepared, tmp_path):
    (tmp_path / "old.jinja").write_bytes("{# Käfer #}".encode("latin-1"))
    file = recipe_file(chat_template={"file": "old.jinja"}, data=rows(1))
    with pytest.raises(ModelError, match=r"old\.jinja: is not UTF-8 text: invalid continuation byte at byte 4"):
        prepared(file)
