import gc
import gzip
import json
import subprocess
import sys

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sftplug import DataError
from sftplug_sources import File, Hub


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


def test_csv_rows_have_an_index(tmp_path):
    file = write(tmp_path / "a.csv", "question,answer\n1+1,2\n")
    assert [(row.origin, row.data) for row in read_file(file)] == [("a.csv[0]", {"question": "1+1", "answer": 2})]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": \n', "a.jsonl:2: is not valid JSON: Expecting value at column 7"),
        ("a.jsonl", b'{"a": 1}\n[1]\n', "a.jsonl:2: must be an object with keys, not list"),
        ("a.json", b'{"a": 1}', "a.json: must hold a list of objects, not dict; or name it .jsonl"),
        ("a.jsonl", b"\n\n", "a.jsonl: holds no rows"),
        ("a.jsonl", '{"a": "é"}'.encode("latin-1"), "is not UTF-8 text: invalid continuation byte at byte 7"),
        ("a.jsnl", b"{}", "cannot read a '.jsnl' file. Did you mean '.jsonl'? Known: .arrow, .csv, .json, .jsonl"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(read_file(tmp_path / name))
    assert message in str(caught.value)


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(DataError, match=r"gone\.jsonl: no file is there"):
        list(read_file(tmp_path / "gone.jsonl"))


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
        if packed:
            pytest.skip("these compress themselves")
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
    with pytest.raises(DataError, match=r"\*\.csv: no file is there"):
        list(read_file(tmp_path / "*.csv"))


def test_a_url_is_read_through_fsspec(tmp_path):
    with fsspec.open("memory://bucket/a.jsonl.gz", "wb") as file:
        file.write(gzip.compress(b'{"n": 1}\n'))
    source = File(path="memory://bucket/a.jsonl.gz")
    assert [(row.origin, row.data) for row in source.rows()] == [("a.jsonl.gz:1", {"n": 1})]
    assert source.fingerprint() is None


def test_a_protocol_whose_library_is_missing_names_it():
    with pytest.raises(DataError, match=r"s3://b/a\.jsonl: reading s3:// needs the library s3fs: pip install s3fs"):
        list(File(path="s3://b/a.jsonl").rows())


@pytest.mark.filterwarnings("ignore:unclosed file")  # the reader of datasets leaves it to the collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_columns_are_chosen_and_a_wrong_one_is_named(tmp_path):
    file = write(tmp_path / "a.csv", "question,answer\n1+1,2\n")
    assert [row.data for row in read_file(file, columns=["answer"])] == [{"answer": 2}]
    with pytest.raises(DataError, match=r"there is no column 'answr'\. Did you mean 'answer'\?"):
        list(read_file(file, columns=["answr"]))
    gc.collect()


def test_a_file_s_fingerprint_changes_with_its_rows(tmp_path):
    file = write(tmp_path / "a.jsonl", '{"n": 1}\n')
    before = File(path=str(file)).fingerprint()
    assert File(path=str(file)).fingerprint() == before
    write(file, '{"n": 2}\n')
    assert File(path=str(file)).fingerprint() != before


def test_rows_of_the_hub_have_an_index_and_only_a_commit_is_sure(monkeypatch):
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: [{"a": 1, "b": 2}])
    source = Hub(hub="org/set", columns=("a",))
    assert [(row.origin, row.data) for row in source.rows()] == [("org/set/train[0]", {"a": 1})]
    assert source.label() == "org/set/train"
    assert source.fingerprint() is None
    assert Hub(hub="org/set", revision="0" * 40).fingerprint() == "0" * 40
