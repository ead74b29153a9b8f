"""Token rows as they are written: the bytes are those that `pyarrow.array` would make, without what it imports."""

import itertools
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from sftplug.data.token_table import lists, texts


@pytest.mark.parametrize("kind", [np.int32, np.float32, np.uint16])
@pytest.mark.parametrize("counts", [[2, 0, 3], [5], []])
def test_lists_are_those_of_pyarrow(kind, counts):
    flat = np.arange(10, dtype=kind)[::2][: sum(counts)]
    bounds = np.cumsum([0, *counts])
    rows = [flat[low:high] for low, high in itertools.pairwise(bounds)]
    made = lists(flat, counts)
    made.validate(full=True)
    assert made.equals(pa.array(rows, type=pa.list_(pa.from_numpy_dtype(kind))))


@pytest.mark.parametrize("said", [["rows.jsonl:1", "", "zeilen.jsonl[ü]"], []])
def test_texts_are_those_of_pyarrow(said):
    made = texts(iter(said))
    made.validate(full=True)
    assert made.equals(pa.array(said, type=pa.string()))


def test_rows_are_written_without_pandas():
    code = (
        "import sys, numpy as np; from sftplug.data.token_table import lists, texts;"
        "lists(np.zeros(3, np.int32), [1, 2]); texts(['a']); print('pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
