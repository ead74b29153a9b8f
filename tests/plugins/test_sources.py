import contextlib
import gzip
import io
import itertools
import json
import os
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import datasets
import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from sftplug import DataError, RecipeError, RowError
from sftplug.recipe import load_recipe
from sftplug_formats import Text
from sftplug_sources import File, Hub, lines
from sftplug_sources.stored import Stored

CUT = " … the file ends within it"
"""After a message: the writer of the file was stopped."""


def read_file(path, **options):
    return File(path=str(path), **options).rows()


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_json_lines_keep_line_numbers_over_blank_lines(tmp_path):
    file = write(tmp_path / "a.jsonl", '{"a": 1}\n\n{"a": 2}\n')
    assert [(row.origin, row.data) for row in read_file(file)] == [("a.jsonl:1", {"a": 1}), ("a.jsonl:3", {"a": 2})]


def test_mixed_argument_types_and_missing_keys_come_out_as_written(tmp_path):
    rows = [
        {"arguments": {"x": 1}, "content": "text"},
        {"arguments": '{"y": 2}', "content": [{"type": "text", "text": "part"}]},
        {"arguments": {"x": "one", "z": None}},
    ]
    file = write(tmp_path / "a.jsonl", "\n".join(json.dumps(row) for row in rows))
    assert [row.data for row in read_file(file)] == rows


def test_a_list_in_a_json_file_is_its_rows(tmp_path):
    file = write(tmp_path / "a.json", '[{"a": 1}, {"a": 2}]')
    assert [row.origin for row in read_file(file)] == ["a.json[0]", "a.json[1]"]


def test_what_a_json_file_holds_decides_how_it_is_read_whatever_its_ending_says(tmp_path):
    rows = [{"a": 1}, {"a": 2}]
    listed = json.dumps(rows)
    for content in (listed, json.dumps(rows, indent=2), '{"a": 1}\n{"a": 2}\n', '\n{"a": 1}\r\n\n{"a": 2}'):
        for ending in ("json", "jsonl"):
            assert [row.data for row in read_file(write(tmp_path / f"a.{ending}", content))] == rows, content
    assert [row.origin for row in read_file(write(tmp_path / "a.json", '{"a": 1}\n\n{"a": 2}'))] == [
        "a.json:1",
        "a.json:3",
    ]


def test_rows_under_a_key_and_cells_with_another_delimiter_are_read_where_the_recipe_says_so(tmp_path):
    wrapped = write(tmp_path / "a.json", '{"version": 1, "data": [{"a": 1}], "more": []}')
    assert [row.data for row in read_file(wrapped, field="data")] == [{"a": 1}]
    with pytest.raises(
        DataError, match=r"holds no list under 'dat'\. Did you mean 'data'\? Lists stand under: data, more"
    ):
        list(read_file(wrapped, field="dat"))
    with pytest.raises(DataError, match=r"holds a list, and no object with the key 'data'\. Leave `field` out"):
        list(read_file(write(tmp_path / "b.json", '[{"a": 1}]'), field="data"))
    cells = write(tmp_path / "a.csv", "question;answer\n1,5?;2\n")
    assert [row.data for row in read_file(cells, delimiter=";")] == [{"question": "1,5?", "answer": "2"}]
    with pytest.raises(DataError, match=r"`delimiter` is for \.csv and \.tsv files\. Leave it out"):
        list(read_file(wrapped, delimiter=";"))
    with pytest.raises(DataError, match=r"`field` is for \.json files\. Leave it out"):
        list(read_file(cells, field="data"))


def test_a_unicode_line_separator_does_not_end_a_row(tmp_path):
    file = write(tmp_path / "a.jsonl", '{"a": "x\u2028y\x85z"}\n')
    assert [row.data["a"] for row in read_file(file)] == ["x\u2028y\x85z"]


def test_gzip_text_and_byte_order_mark(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'\xef\xbb\xbf{"a": 1}\n'))
    assert [row.data for row in read_file(tmp_path / "a.jsonl.gz")] == [{"a": 1}]
    assert [row.data for row in read_file(write(tmp_path / "a.txt", "one\n\ntwo\r\n"))] == [
        {"text": "one"},
        {"text": "two"},
    ]


def test_cells_of_csv_and_tsv_are_the_text_that_they_are_and_know_their_line(tmp_path):
    cells = 'question,answer\n"a\nb",007\n\nNA,null\n"1,5",\n'
    expected = [
        ("a.csv:2", {"question": "a\nb", "answer": "007"}),
        ("a.csv:5", {"question": "NA", "answer": "null"}),
        ("a.csv:6", {"question": "1,5", "answer": ""}),
    ]
    file = write(tmp_path / "a.csv", cells)
    assert [(row.origin, row.data) for row in read_file(file)] == expected
    tabs = write(tmp_path / "a.tsv", "question\tanswer\r\n1+1\t02\r\n")
    assert [row.data for row in read_file(tabs)] == [{"question": "1+1", "answer": "02"}]
    long = write(tmp_path / "b.csv", f"text\n{'x' * 1_000_000}\n")
    assert [len(row.data["text"]) for row in read_file(long)] == [1_000_000]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": \n\n', "a.jsonl:2: is not valid JSON: Expecting value at column 7"),
        (
            "a.jsonl",
            b'{"a": 1}\n{"a": [{"b": 1, "c": 2, "b": 3}]}\n',
            "a.jsonl:2: the key 'b' stands twice in one object, and only one could be read",
        ),
        ("a.json", b'[{"a": 1, "a": 2}]', "a.json: the key 'a' stands twice in one object"),
        ("a.jsonl", b'{"a": 1}\n[1]\n', "a.jsonl:2: must be an object with keys, not list"),
        (
            "a.json",
            b'{"a": 1}',
            "a.json: must hold a list of objects, not dict. If it is one row, put brackets around it.",
        ),
        ("a.json", b'{"messages": [{"role": "user"}]}', "not dict. If it is one row, put brackets around it."),
        ("a.json", b'{"n": 1, "rows": [{"a": 1}]}', "The list under 'rows' seems to be the rows: `field: rows` reads"),
        ("a.csv", b"prompt;a reply\n1;2\n", "a.csv: the columns of its first line are separated by ';'. Say so with"),
        ("a.tsv", b"prompt|reply\n1|2\n", "a.tsv: the columns of its first line are separated by '|'."),
        ("a.jsonl", b"\n\n", "a.jsonl: holds no rows"),
        (
            "a.jsonl",
            '{"a": "é"}'.encode("latin-1"),
            "a.jsonl:1: is not UTF-8 text: invalid continuation byte at byte 7",
        ),
        (
            "a.jsonl",
            b'{"a": "0123456789"}\n' * 5_000 + b'{"a": "\xff"}\n{"a": 1}\n',
            "a.jsonl:5001: is not UTF-8 text: invalid start byte at byte 100,007 of the file. Convert",
        ),
        ("a.json", b'[{"a": 1},\n {"a": "\xff"}]', "a.json:2: is not UTF-8 text: invalid start byte at byte 19 of"),
        ("a.txt", b"\xef\xbb\xbfone\n\xfftwo\n", "a.txt:2: is not UTF-8 text: invalid start byte at byte 7 of"),
        ("a.jsonl", b'{"a": 1}\n{"a": [{"b": "c', f"a.jsonl:2: is not valid JSON: Unterminated string{CUT}"),
        ("a.jsonl", b'{"a": 1}\n{"a": [{"b": "\xc3', f"a.jsonl:2: is not UTF-8 text: unexpected end of data{CUT}"),
        ("a.jsonl", b'{"a": 1}\n{"a": tru', f"a.jsonl:2: is not valid JSON: Expecting value{CUT}"),
        ("a.jsonl", b'{"a": 1}\n{"a": "\\u00', f"a.jsonl:2: is not valid JSON: Invalid \\uXXXX escape{CUT}"),
        ("a.jsonl", b'{"a": 1}\n{"a": "\\', f"a.jsonl:2: is not valid JSON: Unterminated string{CUT}"),
        ("a.json", b'[{"a": 1}, {"a": 2}', f"a.json: is not valid JSON: Expecting ',' delimiter{CUT}"),
        ("a.csv", b"a,b\n1,2\n1", f"a.csv:3: the first line names 2 columns, and this one has 1{CUT}"),
        (
            "a.json",
            b'{"a": 1}\n{"a": 2',
            f"a.json:2: is not valid JSON: Expecting ',' delimiter{CUT}",
        ),
        ("a.csv", b"a,b\n1,2\n1,2,3\n", "a.csv:3: the first line names 2 columns, and this one has 3"),
        ("a.csv", b"a,b\n1\n", "a.csv:2: the first line names 2 columns, and this one has 1"),
        ("a.csv", b'a,b\n"1,2\n', f"a.csv:2: cannot be read as comma-separated values: unexpected end of data{CUT}"),
        ("a.csv", b"a,a\n1,2\n", "a.csv:1: two columns are named 'a'"),
        ("a.csv", b"a,b\n", "a.csv: holds no rows"),
        ("a.csv", b"", "a.csv: holds no rows"),
        ("a.csv", b"a\n\xe9\n", "is not UTF-8 text: invalid continuation byte at byte 2"),
        ("a.parquet", b"PAR1", "a.parquet: cannot be read as parquet: "),
        ("a.jsonl.gz", b"no gzip", "a.jsonl.gz: cannot be read: Not a gzipped file"),
        ("a.jsonl.zst", b"no zstd", "a.jsonl.zst: cannot be read: "),
        ("a.jsonl", b'{"a": 1}\n{"b": {"c": 1, "c": 2}}', "a.jsonl:2: the key 'c' stands twice in one object"),
        ("a.jsonl", b'{"a": ' + b"9" * 5000 + b"}", "a.jsonl:1: holds a whole number of more than 4,300 digits."),
        ("a", b"{}", "its name has no ending that says how to read it. Known: .arrow, "),
        ("a.jsnl", b"{}", "cannot read a '.jsnl' file. Did you mean '.jsonl'? Known: .arrow, .csv, .json, .jsonl"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(read_file(tmp_path / name))
    message, cut, _ = message.partition(CUT)
    assert message in str(caught.value)
    # Only of the end of a file can it be said that its writer was stopped there.
    assert ("whatever wrote it was stopped" in str(caught.value)) == bool(cut)


def test_a_line_in_the_middle_is_wrong_and_not_cut_off(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"a": "b\n{"a": 1}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:1: is not valid JSON: [^.]*\.$"):
        list(read_file(file))


def test_links_that_lead_in_a_circle_are_told_as_that(tmp_path, recipe_file):
    (tmp_path / "one.jsonl").symlink_to("two.jsonl")
    (tmp_path / "two.jsonl").symlink_to("one.jsonl")
    file = recipe_file()
    file.write_text(file.read_text().replace("rows.jsonl", "one.jsonl"))
    with pytest.raises(RecipeError, match=r"data\.train\.path \(.*\): one\.jsonl leads to no file: Symlink loop"):
        load_recipe(str(file))
    assert list(File(path=str(tmp_path / "one.jsonl")).check(None)) == [
        f"the symbolic link {tmp_path / 'one.jsonl'} leads to no file."
    ]
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "round").symlink_to("../folder")
    with pytest.raises(DataError, match=r"round: is a folder behind a symbolic link, which is not followed"):
        list(read_file(folder))


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(DataError, match=r"gone\.jsonl: no file is there"):
        list(read_file(tmp_path / "gone.jsonl"))
    pattern = str(tmp_path / "*.jsonl")
    with pytest.raises(DataError, match=r"\*\.jsonl: no file matches this pattern"):
        list(read_file(pattern))
    assert list(File(path=pattern).check(None)) == [f"no file matches the pattern {pattern}."]
    (tmp_path / "a.jsonl").write_text("{}")
    assert list(File(path=pattern).check(None)) == []


@pytest.mark.parametrize("name", [b"a\xff.jsonl", b"a?b#c.jsonl", b"a[1].jsonl", "ä b.jsonl".encode()])
def test_a_file_may_be_called_anything(tmp_path, name):
    path = os.fsencode(tmp_path) + b"/" + name
    Path(os.fsdecode(path)).write_text('{"text": "a"}\n')
    shown = name.decode("utf-8", "replace")
    source = File(path=str(tmp_path))
    assert [row.origin for row in source.rows()] == [f"{shown}:1"]
    assert source.fingerprint()


def test_json_that_is_nested_too_deeply_says_so(tmp_path):
    (tmp_path / "a.jsonl").write_text("[" * 100_000)
    script = f"import sftplug_sources\nlist(sftplug_sources.File(path={str(tmp_path / 'a.jsonl')!r}).rows())"
    # In a process of its own: running out of stack leaves Python 3.11's parser in a bad state.
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "a.jsonl:1: is nested too deeply" in done.stderr


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "tsv", "txt", "parquet", "arrow"])
@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
def test_every_ending_is_read_compressed_or_not(tmp_path, ending, packed):
    file, data = tmp_path / f"a.{ending}", [{"text": "one"}, {"text": "two"}]
    if ending in ("parquet", "arrow"):
        table = pa.Table.from_pylist(data)
        if ending == "parquet":
            pq.write_table(table, file)
        else:
            with pa.ipc.new_stream(str(file), table.schema) as stream:
                stream.write_table(table)
    else:
        lines = {"jsonl": '{"text": "one"}\n{"text": "two"}\n', "json": json.dumps(data), "txt": "one\ntwo\n"}
        file.write_text(lines.get(ending, "text\none\ntwo\n"))
    if packed:
        with pa.CompressedOutputStream(
            str(file) + packed, packed[1:].replace("gz", "gzip").replace("zst", "zstd")
        ) as out:
            out.write(file.read_bytes())
        file = file.with_name(file.name + packed)
    assert [row.data for row in read_file(file)] == data


def test_a_pattern_and_a_folder_are_their_files_in_order(tmp_path):
    (tmp_path / "b.jsonl").write_text('{"n": 2}\n')
    (tmp_path / "a.jsonl").write_text('{"n": 1}\n')
    (tmp_path / "README.md").write_text("about")
    assert [row.data["n"] for row in read_file(tmp_path)] == [1, 2]
    assert [row.origin for row in read_file(tmp_path / "*.jsonl")] == ["a.jsonl:1", "b.jsonl:1"]
    (tmp_path / "c.bin").write_bytes(b"?")
    with pytest.raises(DataError, match=r"c\.bin: cannot read a '\.bin' file"):
        list(read_file(tmp_path))
    with pytest.raises(DataError, match=r"\*\.csv: no file matches this pattern"):
        list(read_file(tmp_path / "*.csv"))


def test_a_url_is_read_through_fsspec(tmp_path):
    with fsspec.open("memory://bucket/a.jsonl.gz", "wb") as file:
        file.write(gzip.compress(b'{"n": 1}\n'))
    source = File(path="memory://bucket/a.jsonl.gz")
    assert [(row.origin, row.data) for row in source.rows()] == [("a.jsonl.gz:1", {"n": 1})]
    assert source.fingerprint() is None


@pytest.mark.parametrize(("protocol", "library"), [("s3", "s3fs"), ("gs", "gcsfs"), ("az", "adlfs")])
def test_a_protocol_whose_library_is_missing_names_it(protocol, library):
    path = f"{protocol}://bucket/a.jsonl"
    with pytest.raises(DataError) as caught:
        list(File(path=path).rows())
    assert str(caught.value) == f"{path}: reading {protocol}:// needs the library {library}: pip install {library}"


def test_columns_are_chosen_and_a_wrong_one_is_named(tmp_path):
    pq.write_table(pa.Table.from_pylist([{"question": "1+1", "answer": "2"}]), tmp_path / "a.parquet")
    for file in (tmp_path / "a.parquet", write(tmp_path / "a.csv", "question,answer\n1+1,2\n")):
        assert [row.data for row in read_file(file, columns=["answer"])] == [{"answer": "2"}]
        with pytest.raises(DataError, match=r"there is no column 'answr'\. Did you mean 'answer'\?"):
            list(read_file(file, columns=["answr"]))


TOOLS = [
    [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"x": {"a": 1}}}}}],
    [{"type": "function", "function": {"name": "g", "description": "d"}}],
]
CALLS = [{"name": "f", "arguments": {"x": 1}}, {"name": "g", "arguments": {"y": ["z"]}}]


def test_objects_of_a_table_have_no_member_that_their_row_did_not_have(tmp_path):
    rows = [{"tools": tools, "call": call, "empty": None} for tools, call in zip(TOOLS, CALLS, strict=True)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert [row.data for row in read_file(tmp_path / "a.parquet")] == rows
    # JSON text in a column comes out as it went in, nulls and all.
    datasets.Dataset.from_dict(
        {"call": [{"x": None}, {"y": "1"}]}, features=datasets.Features({"call": datasets.Json()})
    ).to_parquet(str(tmp_path / "b.parquet"))
    assert [row.data["call"] for row in read_file(tmp_path / "b.parquet")] == [{"x": None}, {"y": "1"}]


def test_what_no_json_holds_is_called_by_its_name(tmp_path):
    table = pa.table({"text": pa.array([b"one"]), "when": pa.array([0], pa.timestamp("us")), "none": pa.nulls(1)})
    pq.write_table(table, tmp_path / "a.parquet")
    (row,) = read_file(tmp_path / "a.parquet")
    for column, kind in (("text", "bytes"), ("when", "a datetime"), ("none", "null")):
        with pytest.raises(RowError, match=f"{column}: must be text, not {kind}"):
            Text(column=column).to_conversation(row.data)


TEXTS = {
    "large": pa.large_string(),
    "view": pa.string_view(),
    "dictionary": pa.dictionary(pa.int32(), pa.string()),
    "run ends": pa.run_end_encoded(pa.int32(), pa.string()),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_text_is_text_however_a_table_holds_it(tmp_path, kind):
    plain = pa.array(["one", "one", "é two"])
    array = pc.run_end_encode(plain) if kind == "run ends" else plain.cast(TEXTS[kind])
    schema = pa.schema([("text", array.type)])
    with pa.ipc.new_file(str(tmp_path / "a.arrow"), schema) as file:
        file.write_batch(pa.record_batch([array], schema=schema))
    assert [row.data for row in read_file(tmp_path / "a.arrow")] == [
        {"text": "one"},
        {"text": "one"},
        {"text": "é two"},
    ]
    if kind != "run ends":  # Parquet has none
        pq.write_table(pa.table({"text": array}), tmp_path / "a.parquet")
        assert [row.data["text"] for row in read_file(tmp_path / "a.parquet")] == ["one", "one", "é two"]


def test_maps_and_json_of_a_table_are_objects(tmp_path):
    member = pa.struct([("b", pa.int64()), ("c", pa.int64())])
    maps = pa.array([[("a", {"b": 1, "c": None})], None], pa.map_(pa.string(), member))
    texts = pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"x": null}', None, "[1]"]))
    pq.write_table(pa.table({"map": maps, "json": pa.ListArray.from_arrays([0, 2, 3], texts)}), tmp_path / "a.parquet")
    assert [row.data for row in read_file(tmp_path / "a.parquet")] == [
        {"map": {"a": {"b": 1}}, "json": [{"x": None}, None]},
        {"map": None, "json": [[1]]},
    ]


def test_text_of_a_table_that_is_not_utf8_is_named_with_its_row(tmp_path):
    bad = pa.Array.from_buffers(pa.string(), 3, pa.array([b"one", b"tw\xff", b"three"]).buffers())
    pq.write_table(pa.table({"n": [0, 1, 2], "text": bad}), tmp_path / "a.parquet")
    message = r"a\.parquet\[1\]: column 'text' holds text that is not UTF-8: invalid start byte at byte 2 of the text"
    with pytest.raises(DataError, match=message):
        list(read_file(tmp_path / "a.parquet"))


def test_a_table_without_rows_is_told_unless_it_is_one_of_several(tmp_path):
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: holds no rows"):
        list(read_file(tmp_path / "a.parquet"))
    pq.write_table(pa.table({"text": ["one"]}), tmp_path / "b.parquet")
    (tmp_path / "c.parquet").write_bytes((tmp_path / "a.parquet").read_bytes())
    assert [row.data["text"] for row in read_file(tmp_path)] == ["one"]
    (tmp_path / "b.parquet").unlink()
    with pytest.raises(DataError, match=r"c\.parquet: holds no rows"):
        list(read_file(tmp_path))


def test_columns_of_a_table_that_are_not_there_are_named(tmp_path):
    pq.write_table(pa.table({"text": ["one"], "n": [1]}), tmp_path / "a.parquet")
    with pytest.raises(
        DataError, match=r"a\.parquet: there is no column 'txt'\. Did you mean 'text'\? Columns: text, n\."
    ):
        list(read_file(tmp_path / "a.parquet", columns=("txt",)))
    assert [row.data for row in read_file(tmp_path / "a.parquet", columns=("n",))] == [{"n": 1}]


# --- nothing is opened that a table names -----------------------------------------------------------------------------

MEDIA = [
    {"_type": "Image"},
    {"_type": "Audio", "sampling_rate": 8000},
    {"_type": "Video"},
    {"_type": "Pdf"},
    {"_type": "Nifti"},
]


def _media_table(address, path):
    """Return a table whose columns say that they are images, recordings …, at an address and at a path; nested too."""
    stored = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns, features = {"text": pa.array(["one", "two"])}, {"text": {"dtype": "string", "_type": "Value"}}
    for feature in MEDIA:
        name = feature["_type"].lower()
        values = [{"bytes": None, "path": address}, {"bytes": None, "path": path}]
        columns |= {
            name: pa.array(values, stored),
            f"{name}_in_list": pa.array([values, []], pa.list_(stored)),
            f"{name}_in_object": pa.array([{"it": value} for value in values], pa.struct([("it", stored)])),
        }
        features |= {
            name: feature,
            f"{name}_in_list": {"feature": feature, "_type": "List"},
            f"{name}_in_object": {"it": feature},
        }
    table = pa.table(columns)
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    return table.replace_schema_metadata(metadata)


OPENED = []
WATCHING = []
sys.addaudithook(lambda event, args: OPENED.append(args[0]) if WATCHING and event == "open" else None)


@pytest.fixture
def watched(tmp_path):
    """Return an address that nobody must ask, and a path that nobody must open; fail if somebody did."""
    asked = []

    class Asked(_Quiet):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Asked)
    Thread(target=server.serve_forever, daemon=True).start()
    secret = tmp_path / "secret"
    secret.write_text("not for everyone")
    WATCHING.append(True)
    yield f"http://127.0.0.1:{server.server_port}/image.png", str(secret)
    WATCHING.clear()
    server.shutdown()
    server.server_close()
    assert not asked
    assert str(secret) not in [str(path) for path in OPENED]
    OPENED.clear()


@pytest.mark.parametrize("columns", [None, ("text",)])
@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_what_a_table_calls_media_is_neither_fetched_nor_opened(tmp_path, watched, ending, columns):
    address, path = watched
    table, file = _media_table(address, path), tmp_path / f"a.{ending}"
    if ending == "parquet":
        pq.write_table(table, file)
    else:
        with pa.ipc.new_stream(str(file), table.schema) as stream:
            stream.write_table(table)
    first, second = (row.data for row in read_file(file, columns=columns))
    assert [first["text"], second["text"]] == ["one", "two"]
    if columns is None:
        assert first["image"] == first["audio_in_object"]["it"] == {"path": address}
        assert second["pdf"] == {"path": path}


@pytest.mark.parametrize("columns", [None, ("text",)])
def test_what_a_dataset_of_the_hub_calls_media_is_neither_fetched_nor_opened(tmp_path, watched, columns):
    address, path = watched
    folder = tmp_path / "set"
    folder.mkdir()
    pq.write_table(_media_table(address, path), folder / "train.parquet")
    first, second = (row.data for row in Hub(hub=str(folder), columns=columns).rows())
    assert [first["text"], second["text"]] == ["one", "two"]
    if columns is None:
        assert first["image"] == first["video_in_object"]["it"] == {"path": address}
        assert second["nifti"] == {"path": path}


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def served(tmp_path):
    """Return the address under which the files in `tmp_path` are served."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_files_behind_a_web_address_are_read(tmp_path, served):
    write(tmp_path / "a.jsonl", '{"n": 1}\n{"n": 2}\n')
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b'{"n": 3}\n'))
    pq.write_table(pa.table({"n": [4]}), tmp_path / "c.parquet")
    write(tmp_path / "d.csv", "n\n5\n")
    found = [
        (row.origin, row.data["n"])
        for name in ("a.jsonl", "b.jsonl.gz", "c.parquet", "d.csv")
        for row in File(path=f"{served}/{name}").rows()
    ]
    assert found == [("a.jsonl:1", 1), ("a.jsonl:2", 2), ("b.jsonl.gz:1", 3), ("c.parquet[0]", 4), ("d.csv:2", "5")]
    assert File(path=f"{served}/a.jsonl?version=2").fingerprint() is None
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:\d+/gone\.jsonl: cannot be read: "):
        list(File(path=f"{served}/gone.jsonl").rows())


class _Endless(io.RawIOBase):
    def readable(self):
        return True

    def readinto(self, buffer):
        line = b'{"n": 1}\n'
        buffer[: len(line)] = line
        return len(line)


def test_rows_are_read_as_they_are_wanted_and_never_all_at_once():
    without_end = SimpleNamespace(open=lambda *_: io.BufferedReader(_Endless()))
    with contextlib.closing(lines.read(Stored("endless.jsonl", without_end), ".jsonl", lines.Reading())) as rows:
        assert [row.data for row in itertools.islice(rows, 3)] == [{"n": 1}] * 3


def test_a_pattern_and_a_folder_in_a_bucket_are_their_files_in_order():
    memory = fsspec.filesystem("memory")
    for name, text in {"/set/b.jsonl": '{"n": 2}\n', "/set/a.jsonl": '{"n": 1}\n', "/set/README.md": "about"}.items():
        memory.pipe(name, text.encode())
    for path in ("memory://set", "memory://set/*.jsonl"):
        assert [row.data["n"] for row in File(path=path).rows()] == [1, 2]
    with pytest.raises(DataError, match=r"memory://gone: no file is there"):
        list(File(path="memory://gone").rows())


def test_a_file_s_fingerprint_changes_with_its_rows(tmp_path):
    file = write(tmp_path / "a.jsonl", '{"n": 1}\n')
    before = File(path=str(file)).fingerprint()
    assert File(path=str(file)).fingerprint() == before
    write(file, '{"n": 2}\n')
    assert File(path=str(file)).fingerprint() != before


@pytest.fixture
def hub_set(tmp_path):
    """Return a folder laid out as a dataset on the Hub, which `datasets` reads in the same way."""
    for config, split, text in [("a", "train", "one"), ("b", "train", "two"), ("b", "validation", "three")]:
        (tmp_path / config).mkdir(exist_ok=True)
        write(tmp_path / config / f"{split}.jsonl", json.dumps({"text": text, "n": 1}) + "\n")
    card = """---
configs:
- config_name: a
  data_files: [{split: train, path: a/train.jsonl}]
- config_name: b
  data_files: [{split: train, path: b/train.jsonl}, {split: validation, path: b/validation.jsonl}]
---
"""
    write(tmp_path / "README.md", card)
    return tmp_path


def test_configuration_split_and_columns_of_a_hub_dataset_are_chosen(hub_set):
    source = Hub(hub=str(hub_set), config="b", split="validation", columns=("text",))
    assert [(row.origin, row.data) for row in source.rows()] == [(f"{hub_set}/validation[0]", {"text": "three"})]
    assert source.label() == f"{hub_set}/b/validation"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Please pick one among the available configs: ['a', 'b']"),
        ({"config": "c"}, "BuilderConfig 'c' not found. Available: ['a', 'b']"),
        ({"config": "a", "split": "test"}, "(split test): Bad split: test. Available splits: ['train']"),
        ({"config": "a", "columns": ("txt",)}, "there is no column 'txt'. Did you mean 'text'? Columns: text, n."),
    ],
)
def test_what_a_hub_dataset_does_not_have_is_named(hub_set, options, message):
    with pytest.raises(DataError) as caught:
        list(Hub(hub=str(hub_set), **options).rows())
    assert message in str(caught.value)


def test_without_a_network_a_hub_dataset_says_that_it_cannot_be_reached():
    script = "import sftplug_sources\nlist(sftplug_sources.Hub(hub='org/set').rows())"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment)
    assert "DataError: dataset org/set (split train): Couldn't reach 'org/set' on the Hub" in done.stderr


def test_the_revision_is_asked_for_and_only_a_commit_stays_the_same(monkeypatch):
    asked = {}
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **options: asked.update(options) or _Nothing())
    commit = Hub(hub="org/set", revision="0" * 40)
    assert list(commit.rows()) == []
    assert asked == {"split": "train", "revision": "0" * 40, "streaming": True}
    assert commit.fingerprint() == "0" * 40
    assert Hub(hub="org/set", revision="main").fingerprint() is None
    assert Hub(hub="org/set").fingerprint() is None


class _Nothing(list):
    features = None
