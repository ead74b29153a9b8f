"""A folder is read by its splits: what README says, what a saved dataset says of itself, or names of files."""

import shutil

import datasets
import pytest
from conftest import TINY, rows, write_rows

import sftplug
from sftplug import DataError, RecipeError
from sftplug_sources import File


def folder(root, *names):
    """Write files of one row each, which says the name of its file."""
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        write_rows(file, [{"text": name}])
    return root


def read(path, **options):
    source = File(path=str(path), **options)
    return [row.data["text"] for row in source.rows()], [*source.notes()]


@pytest.mark.parametrize(
    ("names", "read_by_default"),
    [
        (["test.jsonl", "train.jsonl", "valid.jsonl"], ["train.jsonl"]),
        (["train.jsonl", "dev.jsonl"], ["train.jsonl"]),
        (["train/a.jsonl", "train/b.jsonl", "test/a.jsonl"], ["train/a.jsonl", "train/b.jsonl"]),
        (["my_train_1.jsonl", "my_train_2.jsonl", "my-eval.jsonl"], ["my_train_1.jsonl", "my_train_2.jsonl"]),
        (
            ["data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl", "data/test-00000-of-00001.jsonl"],
            None,
        ),
        (["a.jsonl", "b.jsonl"], ["a.jsonl", "b.jsonl"]),
        (["latest.jsonl", "contest.jsonl"], ["contest.jsonl", "latest.jsonl"]),
        (["train.jsonl", ".git/objects/ab", "README.md", ".cache/huggingface/train.metadata"], ["train.jsonl"]),
    ],
)
def test_names_of_files_and_folders_say_splits_as_on_the_hub(tmp_path, names, read_by_default):
    folder(tmp_path, *names)
    (tmp_path / "README.md").write_text("about")
    found, said = read(tmp_path)
    assert found == (read_by_default or names[:2])
    assert bool(said) == any(word in ("test", "dev", "eval", "valid") for word in _words(names))
    if said:  # `datasets` reads these files of the same folder
        shutil.rmtree(tmp_path / ".git", ignore_errors=True)
        expected = datasets.load_dataset("json", data_dir=str(tmp_path), split="train", cache_dir=str(tmp_path / ".hf"))
        assert sorted(found) == sorted(row["text"] for row in expected)


def _words(names):
    return {word for name in names for word in name.replace("/", ".").replace("-", ".").replace("_", ".").split(".")}


def test_what_is_left_out_is_said_and_every_split_can_be_read(tmp_path):
    folder(tmp_path, "train.jsonl", "valid.jsonl", "test_1.jsonl", "test_2.jsonl")
    others = "test (test_1.jsonl, test_2.jsonl), validation (valid.jsonl)"
    said = f"reads the split train (train.jsonl), and leaves out {others}"
    assert read(tmp_path) == (["train.jsonl"], [said])
    assert read(tmp_path, split="test")[0] == ["test_1.jsonl", "test_2.jsonl"]
    assert read(tmp_path, split="valid")[0] == read(tmp_path, split="validation")[0] == ["valid.jsonl"]
    assert File(path=str(tmp_path), split="test").label() == f"{tmp_path} (test)"
    with pytest.raises(
        DataError, match=r"there is no split 'tset'\. It holds test \(test_1\.jsonl, test_2\.jsonl\), train"
    ):
        read(tmp_path, split="tset")


def test_a_pattern_that_names_a_split_means_it_and_another_one_does_not_train_on_tests(tmp_path):
    folder(tmp_path, "train.jsonl", "test.jsonl", "unit/test/a.jsonl")
    assert read(tmp_path / "*test*.jsonl") == (["test.jsonl"], [])
    assert read(tmp_path / "test.jsonl") == (["test.jsonl"], [])
    assert read(tmp_path / "*.jsonl")[0] == ["train.jsonl"]
    assert read(folder(tmp_path / "capital", "Train.jsonl", "Test.jsonl"))[0] == ["Train.jsonl"]
    assert read(tmp_path / "unit" / "test") == (["unit/test/a.jsonl"], [])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["test.jsonl"],
            r"holds test \(test\.jsonl\), and no split that is called train\. Choose one with `split: test`",
        ),
        (["train_sft-00000-of-00001.jsonl", "test_sft-00000-of-00001.jsonl"], r"Choose one with `split: train_sft`"),
        (
            ["train.jsonl", "more.jsonl", "test.jsonl"],
            r"and more\.jsonl says no split\. Choose with `split`, which leaves",
        ),
        (
            ["part-0.jsonl", "part-1.jsonl", "test.jsonl"],
            r"say test \(test\.jsonl\), and part-0\.jsonl, part-1\.jsonl says no",
        ),
        (
            ["train/a.jsonl", "train/test.jsonl"],
            r"train/test\.jsonl names two splits, train and test\. Name the files to",
        ),
    ],
)
def test_what_is_not_sure_is_refused_with_the_ways_out(tmp_path, names, message):
    with pytest.raises(DataError, match=message):
        read(folder(tmp_path, *names))


def test_a_split_where_no_name_says_any_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no name of a file or folder there says a split\. Leave `split` out"):
        read(folder(tmp_path, "a.jsonl", "b.jsonl"), split="train")
    with pytest.raises(DataError, match=r"`config` chooses by README of a folder, and this is none\. Leave it out"):
        read(tmp_path / "a.jsonl", config="en")
    (tmp_path / "empty").mkdir()
    folder(tmp_path / "empty", ".gitattributes", "README.md")
    with pytest.raises(DataError, match=r"holds no file with rows, only \.gitattributes, README\.md"):
        read(tmp_path / "empty")


README = """---
license: mit
configs:
- config_name: english
  data_files:
  - split: train
    path: en/questions-*.jsonl
  - split: probe
    path: [en/asked.jsonl]
- config_name: german
  data_dir: de
- config_name: list
  data_files: en/asked.jsonl
---
# Questions
"""


def test_readme_says_what_is_of_which_split(tmp_path):
    folder(
        tmp_path, "en/questions-1.jsonl", "en/questions-2.jsonl", "en/asked.jsonl", "de/train.jsonl", "de/test.jsonl"
    )
    (tmp_path / "README.md").write_text(README)
    with pytest.raises(
        DataError, match=r"several configurations\. It names: english, german, list\. Choose one with `con"
    ):
        read(tmp_path)
    found, said = read(tmp_path, config="english")
    assert found == ["en/questions-1.jsonl", "en/questions-2.jsonl"]
    assert said == ["reads the split train (questions-1.jsonl, questions-2.jsonl), and leaves out probe (asked.jsonl)"]
    assert read(tmp_path, config="english", split="probe")[0] == ["en/asked.jsonl"]
    assert read(tmp_path, config="german")[0] == ["de/train.jsonl"]
    assert read(tmp_path, config="german", split="test")[0] == ["de/test.jsonl"]
    assert read(tmp_path, config="list") == (["en/asked.jsonl"], [])
    with pytest.raises(DataError, match=r"no configuration 'french'\. It names: english, german, list"):
        read(tmp_path, config="french")
    (tmp_path / "README.md").write_text(README.replace("config_name: english", "config_name: english\n  default: true"))
    assert read(tmp_path)[0] == ["en/questions-1.jsonl", "en/questions-2.jsonl"]
    (tmp_path / "en" / "asked.jsonl").unlink()
    with pytest.raises(
        DataError, match=r"README says that the split probe is en/asked\.jsonl, and no such file is there"
    ):
        read(tmp_path)
    (tmp_path / "README.md").write_text("---\nconfigs: [\n---\n")
    with pytest.raises(DataError, match=r"README\.md: its head is not valid YAML"):
        read(tmp_path)


def test_a_saved_dataset_is_read_by_its_splits_and_nothing_is_read_that_lies_beside_it(tmp_path):
    parts = {
        name: datasets.Dataset.from_dict({"text": [f"{name} {n}" for n in range(3)]}) for name in ("train", "probe")
    }
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    shutil.copy(
        tmp_path / "saved" / "train" / "data-00000-of-00001.arrow", tmp_path / "saved" / "train" / "cache-1a.arrow"
    )
    assert read(tmp_path / "saved")[0] == ["train 0", "train 1", "train 2"]
    assert read(tmp_path / "saved", split="probe")[0] == ["probe 0", "probe 1", "probe 2"]
    with pytest.raises(DataError, match=r"there is no split 'test'\. It holds train"):
        read(tmp_path / "saved", split="test")
    parts["train"].save_to_disk(str(tmp_path / "one"))
    assert read(tmp_path / "one") == (["train 0", "train 1", "train 2"], [])


def test_held_out_rows_of_a_folder_say_which_split_they_are(tmp_path):
    (tmp_path / "ds").mkdir()
    for split, count in (("train", 6), ("test", 3)):
        write_rows(tmp_path / "ds" / f"{split}.jsonl", rows(count, seed=count))
    of = {"path": str(tmp_path / "ds")}
    recipe = {"model": {"build": TINY}, "data": {"train": of, "eval": of}, "chat_template": "chatml"}
    with pytest.raises(RecipeError, match=r"For held-out rows say which split they are: `split: test`\."):
        sftplug.load(recipe)
    recipe["data"]["eval"] = {**of, "split": "test"}
    ready = sftplug.prepare(sftplug.load(recipe))
    assert (len(ready.train), len(ready.eval)) == (6, 3)
    account = ready.ledger.splits["train"][0]
    assert account.said == ("reads the split train (train.jsonl), and leaves out test (test.jsonl)",)
    assert account.to_dict()["said"] == list(account.said)
