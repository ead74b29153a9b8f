"""What `sftplug preview` shows is what the trainer gets, on a terminal, as JSON, and in a real browser."""

import json

from browser import HOSTILE, Page, needs_browser, shown
from conftest import rows
from typer.testing import CliRunner

from sftplug.cli import app
from sftplug.previewing import PreviewRow, PreviewToken
from sftplug.previewing.terminal import draw_row

runner = CliRunner()


def preview(file, *options):
    result = runner.invoke(app, ["preview", str(file), *map(str, options)])
    assert result.exit_code == 0, result.output
    return result.output


def test_json_is_what_the_trainer_gets(recipe_file, prepared):
    file = recipe_file(masking=["assistant", {"end_of_turn": "mask"}])
    shown = json.loads(preview(file, "--json", "-n", "1000"))["rows"]
    dataset = prepared(file).train
    assert len(shown) == len(dataset) == 24
    for row, example in zip(shown, dataset, strict=True):
        assert [token["id"] for token in row["tokens"]] == example["input_ids"]
        assert [token["id"] if token["weight"] else -100 for token in row["tokens"]] == example["labels"]
        assert "".join(token["text"] for token in row["tokens"]).startswith("<|im_start|>user\nQuestion")
    assert shown[1]["origin"] == "rows.jsonl:2"


def test_the_terminal_shows_rows_turns_ids_and_totals(recipe_file):
    output = preview(recipe_file(), "--row", "3", "--ids")
    assert "row 3  rows.jsonl:4  41 tokens, 8 trained" in output
    assert "[0 user]" in output
    assert "[1 assistant]" in output
    assert "⟨" in output
    assert "rows: 24\n" in output
    assert "stops learned: <|im_end|> x 24" in output
    assert "trained: " in output


def test_only_the_heading_and_what_is_trained_is_bold():
    user = PreviewToken(id=1, text="hi", weight=0.0, role="user", part="content", message=0)
    reply = PreviewToken(id=2, text="yo", weight=1.0, role="assistant", part="content", message=1)
    text = draw_row(PreviewRow(0, "rows.jsonl:1", (user, reply), ()))
    styles = {text.plain[span.start : span.end]: span.style for span in text.spans}
    assert text.style == ""
    assert (styles["hi"], styles["yo"]) == ("dim", "bold green")


def test_what_is_trained_can_be_told_without_colours(recipe_file):
    output = preview(recipe_file(data=rows(1)))
    assert "⟦It is red.<|im_end|>⟧⏎" in output
    weighted = preview(recipe_file(data=rows(1), masking=["assistant", {"regex": {"pattern": " is", "weight": 0.5}}]))
    assert "⟦It⟧⟦0.5: is⟧⟦ red.<|im_end|>⟧⏎" in weighted


def test_a_character_of_several_tokens_is_shown_once(recipe_file, tmp_path):
    data = [{"messages": [{"role": "user", "content": "日本"}, {"role": "assistant", "content": "四🎉"}]}]
    file = recipe_file(data=data)
    assert "日本<|im_end|>" in preview(file)
    assert "⟦四🎉<|im_end|>⟧" in preview(file)
    (shown,) = json.loads(preview(file, "--json"))["rows"]
    assert "".join(token["text"] for token in shown["tokens"]).endswith("assistant\n四🎉<|im_end|>\n")
    preview(file, "--html", tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text().count(">·</span>") == 2 * 2 + 2 + 3  # of three and of four bytes


def test_a_row_that_is_cut_says_how_much_is_missing(recipe_file, tmp_path):
    long = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "word " * 400}]}
    file = recipe_file(data=[*rows(1), long])
    options = ["data.too_long=truncate", "data.max_loss=1"]
    output = " ".join(preview(file, *options).split())
    assert output.count("┃ cut: ") == 1
    first, second = json.loads(preview(file, *options, "--json"))["rows"]
    assert (first["cut"], len(second["tokens"])) == (0, 256)
    assert second["cut"] + sum(len(token["text"]) for token in second["tokens"]) > 2000
    preview(file, *options, "--html", tmp_path / "page.html")
    assert f"cut: {second['cut']:,} more characters" in (tmp_path / "page.html").read_text()


def test_facts_are_numbers_in_json_and_html_may_be_written_beside(recipe_file, tmp_path):
    result = runner.invoke(app, ["preview", str(recipe_file()), "--json", "--html", str(tmp_path / "page.html")])
    facts = json.loads(result.stdout)["facts"]
    assert facts.pop("tokens") > facts.pop("trained") > 0
    nothing = {"noted": {}, "dropped": {}, "replaced": {}, "system_given": 0, "processed": []}
    assert facts == {"rows": 24, "added": 0, "stops": {"<|im_end|>": 24}, **nothing}
    assert (tmp_path / "page.html").exists()


def test_options_that_cannot_be_met_are_refused(recipe_file, tmp_path):
    file = str(recipe_file())
    gone = runner.invoke(app, ["preview", file, "--row", "24"])
    assert "there is no row 24: 24 rows reach the trainer, counted from 0." in str(gone.exception)
    clash = runner.invoke(app, ["preview", file, "--diff", file, "--json"])
    assert clash.exit_code == 2
    assert "--diff is shown in the terminal" in clash.output
    nowhere = runner.invoke(app, ["preview", file, "--html", str(tmp_path / "gone" / "page.html")])
    assert f"there is no folder {tmp_path / 'gone'}. Name another file." in str(nowhere.exception)


def test_control_characters_of_a_row_do_not_reach_the_terminal(recipe_file):
    data = [{"messages": [{"role": "user", "content": HOSTILE[4]}, {"role": "assistant", "content": "ok"}]}]
    output = preview(recipe_file(data=data))
    assert "\\x1b[31m" in output
    assert "\x07" not in output


def test_diff_shows_the_rows_that_two_recipes_train_differently(recipe_file):
    two = [*rows(1)[0]["messages"], *rows(2)[1]["messages"]]
    first = recipe_file("first", data=[*rows(1), {"messages": two}])
    second = recipe_file("second", data=[*rows(1), {"messages": two}], masking="last_assistant")
    assert "1 of 2 rows are trained differently" in preview(first, "--diff", second)
    assert "[-It is red.<|im_end|>-]" in preview(first, "--diff", second)
    assert "{+It is red.<|im_end|>+}" in preview(second, "--diff", first)
    assert "0 of 2 rows are trained differently" in preview(first, "--diff", first)


def test_a_divergent_turn_is_noted(recipe_file, tmp_path):
    (tmp_path / "t.jinja").write_text(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    )
    output = preview(recipe_file(chat_template={"file": "t.jinja"}, data=rows(1)), "spans.on_divergence=warn")
    assert "inference prompts with '<|im_end|>" in " ".join(output.split())
    assert "noted: 1 divergent_header" in output


def test_rows_that_are_refused_do_not_hide_the_good_ones(recipe_file):
    bad = {"messages": [{"role": "user", "content": "alone"}]}
    result = runner.invoke(app, ["preview", str(recipe_file(data=[*rows(2), bad]))])
    assert "row 1  rows.jsonl:2" in result.output
    assert "dropped: 1 empty" in result.output
    assert "rows.jsonl:3: has no assistant turn." in str(result.exception)


@needs_browser
def test_hostile_rows_stay_text_in_a_real_browser(recipe_file, tmp_path):
    data = [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": f"reply {text}"}]}
        for text in HOSTILE
    ]
    page = tmp_path / "rows.html"
    preview(recipe_file(data=data), "--html", page, "-n", len(HOSTILE))
    source = shown(page, tmp_path / "profile")
    dom = Page(source)
    names = {tag for tag, _ in dom.tags}
    assert "pwned" not in source.split("</title>")[0]
    assert names <= {
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "h1",
        "h2",
        "table",
        "tbody",
        "tr",
        "th",
        "td",
        "section",
        "div",
        "span",
        "p",
    }
    assert len([tag for tag, _ in dom.tags if tag == "section"]) == len(HOSTILE)
    assert not any(key in ("src", "href") or key.startswith("on") for _, keys in dom.tags for key in keys)
    assert all(title.startswith("id ") and " · weight " in title and " · message " in title for title in dom.titles)
    assert len(dom.titles) > 100
    for hostile in (HOSTILE[0], HOSTILE[1], HOSTILE[2], HOSTILE[3], HOSTILE[5]):
        assert hostile in dom.text
    assert "\\x1b[31mred\\x07" in dom.text


def test_rows_that_are_too_long_are_shown_with_the_place_where_they_would_end(recipe_file):
    long = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "word " * 400}]}
    file = recipe_file(data=[*rows(2), long])
    output = preview(file, "data.max_loss=1", "--dropped")
    assert "rows.jsonl:3" in output
    assert "rows.jsonl:1" not in output
    assert "┃ max_length 256 ┃" in " ".join(output.split())
    assert "dropped: 1 too long" in output


def test_packed_rows_are_shown_as_the_trainer_gets_them_with_borders(recipe_file, prepared):
    file = recipe_file(data=rows(8))
    options = ["data.packing=rows", "data.max_length=128"]
    shown = json.loads(preview(file, *options, "--json", "-n", "100"))["rows"]
    dataset = prepared(file, *options).train
    assert len(shown) == len(dataset) < 8
    for row, example in zip(shown, dataset, strict=True):
        assert [token["id"] for token in row["tokens"]] == example["input_ids"]
        assert [token["id"] if token["weight"] else -100 for token in row["tokens"]] == example["labels"]
        assert len(row["borders"]) == len(example["seq_lengths"]) - 1
    assert "┃ next document ┃" in " ".join(preview(file, *options).split())
