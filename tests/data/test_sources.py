import gzip
import json

import pytest

from sftplug import DataError
from sftplug.data.sources import read_file


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
        ("a.jsonl", b"[" * 100_000, "a.jsonl:1: is nested too deeply"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(read_file(tmp_path / name))
    assert message in str(caught.value)


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(DataError, match=r"gone\.jsonl: cannot be read: No such file or directory"):
        list(read_file(tmp_path / "gone.jsonl"))
