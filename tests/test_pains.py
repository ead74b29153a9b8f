"""What hurts the users of other tools, one test a pain: none of it can happen here.

Pains that have no test here are shown elsewhere:

01 a template without marks       test_one_changed_character_changes_nothing
                                  test_a_row_without_an_assistant_turn_is_named
                                  test_a_template_that_cannot_be_masked_is_refused_before_weights
02 a model that never stops       test_what_cannot_be_vouched_for_is_refused
                                  test_the_run_folder_holds_what_inference_and_a_later_reader_need
                                  test_a_model_without_padding_or_eos_trains_in_silence
03 masks at token boundaries      test_trained_tokens_decode_to_the_spans_and_no_other_role_s_token_is_trained
                                  test_random_conversations_are_exact_or_refused, test_spans_are_exact
04 losses that are not finite     test_a_loss_that_is_not_finite_stops_before_a_checkpoint_and_names_the_rows
07 other prompts at inference     test_the_saved_template_renders_a_prompt_that_is_a_prefix_of_what_was_trained
                                  test_divergent_turns_become_rows_of_their_own_as_inference_renders_them
09 keys that are ignored          test_every_problem_is_named_at_once_with_path_line_and_nearest_name
                                  test_each_value_is_shown_with_where_it_comes_from_and_who_answers_for_it
                                  test_the_saved_recipe_prepares_the_same_labels
12 what is trained is not seen    test_json_is_what_the_trainer_gets, test_the_terminal_shows_rows_turns_ids_and_totals
13 targets that match nothing     test_a_target_that_matches_nothing_names_the_nearest_before_weights_are_loaded
                                  test_train_tells_the_story_of_the_run
14 new tokens                     test_new_tokens_are_trained_saved_and_reloaded_exactly
                                  test_new_tokens_that_nothing_would_train_are_refused
22 types and checkpointing        test_loss_falls_and_a_fresh_process_gets_the_same_logits
25 no GPU, a heavy install        test_importing_everything_loads_no_heavy_library
                                  test_quick_commands_load_no_heavy_library
26 calls to the network           test_with_sockets_blocked_everything_on_local_paths_works
                                  test_nothing_is_reported_to_a_service_by_default
27 code that comes with a model   test_code_from_the_hub_is_run_at_a_commit_only
                                  test_a_plugin_file_is_shown_before_it_runs
"""

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import trl
import yaml
from conftest import TINY, rows, write_rows
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from sftplug import DataError, MaskError, ModelError, RecipeError
from sftplug.data.store import Store
from sftplug.model.loading import load_tokenizer
from sftplug.recipe import load_recipe
from sftplug_console.tables import show_ledger

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
USER, REPLY = {"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hi."}


def decoded(ready, row=0, *, trained=False):
    example = ready.train[row]
    tokens = [label for label in example["labels"] if label != -100] if trained else example["input_ids"]
    return ready.tokenizer.decode(tokens)


def test_pain_02_a_reply_that_says_nothing_is_trained_to_stop_and_named(recipe_file, prepared):
    silent = {"messages": [USER, {"role": "assistant", "content": " "}]}
    opening = {"messages": [USER, REPLY, USER, {"role": "assistant", "content": ""}]}
    parts = {"messages": [USER, {"role": "assistant", "content": [{"type": "text", "text": ""}]}]}
    ready = prepared(recipe_file(data=[{"messages": [USER, REPLY]}, silent, opening, parts]))
    assert decoded(ready, 2, trained=True) == "Hi.<|im_end|><|im_end|>"
    account = ready.ledger.splits["train"][0]
    assert account.noted == {"empty reply": 3}
    assert [line.partition(" says")[0] for line in account.reasons["empty reply"]] == [
        "rows.jsonl:2: messages[1]",
        "rows.jsonl:3: messages[3]",
        "rows.jsonl:4: messages[1]",
    ]


def test_pain_04_truncation_never_destroys_supervision_silently(recipe_file, prepared, capsys):
    long = {"messages": [USER, {"role": "assistant", "content": "word " * 400}]}
    with pytest.raises(
        DataError, match=r"would be lost, 1\.0% are allowed\. Lengths in tokens: .*`data\.max_length: \d+`"
    ):
        prepared(recipe_file(data=[*rows(8), long]))
    ready = prepared(recipe_file(data=[*rows(8), long]), "data.max_loss=1")
    account = ready.ledger.splits["train"][0].to_dict()
    assert account["dropped"] == {"too long": 1}
    assert account["lost"] > 300
    assert account["length_quantiles"]["100%"] > 400
    show_ledger(ready.ledger)
    share = account["lost"] / (account["lost"] + account["trained"])
    assert f"{share:.1%} of its trained tokens are lost to length" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(
        DataError, match=r"no row of the split 'train' is left: 1 too long\..*Set `data\.max_length: \d+`"
    ):
        prepared(recipe_file(data=[long]))


def test_pain_05_what_a_plugin_returns_is_trained_and_columns_nobody_reads_are_named(recipe_file, prepared, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from sftplug import Conversation, DatasetFormat, Message, hookimpl\n\n\n"
        "class Mine(DatasetFormat):\n    type: str = 'mine'\n\n    def to_conversation(self, row):\n"
        "        turns = Message('user', row['messages'][::-1]), Message('assistant', row['extra'])\n"
        "        return Conversation(turns)\n\n\n"
        "@hookimpl\ndef sftplug_dataset_formats():\n    return [Mine]\n"
    )
    # A column called `messages` is the plugin's to read, whatever others make of that name.
    data = [{"messages": "abc", "extra": "row-level", "labels": [1, 2], "lang": "en"}]
    file = recipe_file(data=data, plugins=["./mine.py"])
    with pytest.raises(
        DataError, match=r"columns that its format does not read: labels, lang\. .* `ignore: \[labels, lang\]`"
    ):
        prepared(file, "data.train.format=mine")
    ignored = prepared(file, "data.train.format=mine", "data.train.ignore=[labels, lang]")
    assert ignored.ledger.splits["train"][0].unread == ()
    ready = prepared(file, "data.train.format=mine", "data.on_unread_column=report")
    assert decoded(ready) == "<|im_start|>user\ncba<|im_end|>\n<|im_start|>assistant\nrow-level<|im_end|>\n"
    assert decoded(ready, trained=True) == "row-level<|im_end|>"
    assert ready.ledger.splits["train"][0].unread == ("labels", "lang")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": [USER, {**REPLY, "weight": 0.5}]}, "messages[1] has the weight 0.5"),
        ({"messages": [USER, {**REPLY, "train": False}, USER, REPLY]}, "messages[1] has the weight 0"),
        (
            {"messages": [USER, {**REPLY, "content": [{"type": "text", "text": "Hi.", "weight": 2}]}]},
            "messages[1].content[0] has the weight 2",
        ),
    ],
)
def test_pain_05_loss_weights_that_no_masking_reads_are_refused(recipe_file, prepared, row, said):
    harmless = {"messages": [{**USER, "weight": 0}, {**REPLY, "weight": 1}]}
    file = recipe_file(data=[harmless, row])
    expected = f"1 of 2 rows .* have loss weights that nothing reads. The first: rows.jsonl:2: {re.escape(said)}, which"
    with pytest.raises(DataError, match=expected):
        prepared(file)
    reported = prepared(file, "data.on_unread_column=report")
    assert reported.ledger.splits["train"][0].noted == {"weight not used": 1}
    assert not prepared(file, "masking=[assistant, message_weights]").ledger.splits["train"][0].noted


def test_pain_05_a_column_of_weights_that_no_masking_reads_is_refused(recipe_file):
    file = recipe_file()
    expected = r"data\.train\.row_weight \(command line\): no masking strategy reads it: add `message_weights`"
    with pytest.raises(RecipeError, match=expected):
        load_recipe(str(file), ["data.train.row_weight=w"])
    load_recipe(str(file), ["data.train.row_weight=w", "masking=[assistant, message_weights]"])


def test_pain_05_template_arguments_that_the_template_does_not_read_are_refused(recipe_file, prepared, tmp_path):
    thinks = "{%- if enable_thinking is defined and enable_thinking %}<|im_start|>think<|im_end|>{% endif %}"
    (tmp_path / "mine.jinja").write_text(thinks + CHATML)
    file = recipe_file(chat_template={"file": "mine.jinja"}, data=[{"messages": [USER, REPLY]}])
    thought = prepared(file, "data.train.template_kwargs={enable_thinking: true}")
    assert decoded(thought).startswith("<|im_start|>think<|im_end|>")
    expected = (
        "rows.jsonl:1: chat template 'file' does not read the argument 'enable_thinkin'. "
        "Did you mean 'enable_thinking'? It reads: enable_thinking. Correct `template_kwargs`"
    )
    with pytest.raises(DataError, match=re.escape(expected)):
        prepared(file, "data.train.template_kwargs={enable_thinkin: true}")
    with pytest.raises(RecipeError, match=r"`messages` is what the rows give the template\. Leave it out\."):
        load_recipe(str(file), ["data.train.template_kwargs={messages: []}"])


def test_pain_07_a_system_prompt_that_the_template_adds_is_told_once(recipe_file, prepared, tmp_path, capsys):
    adds = "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful bot.<|im_end|>\n{% endif %}"
    (tmp_path / "mine.jinja").write_text(adds + CHATML)
    system = {"role": "system", "content": "You are a parrot in a cage."}
    file = recipe_file(chat_template={"file": "mine.jinja"}, data=[{"messages": [system, USER, REPLY]}, *rows(4)])
    ready = prepared(file)
    assert ready.ledger.preamble.startswith("<|im_start|>system\nYou are a helpful bot.<|im_end|>")
    assert ready.ledger.to_dict()["preamble"] == ready.ledger.preamble
    show_ledger(ready.ledger)
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.count("the template says before rows without a system turn: <|im_start|>system You are a") == 1
    assert prepared(file, "chat_template=chatml").ledger.preamble == ""


OPENS = CHATML.replace("\n{{ m.content", "\n{{ '<think>\n' if m.role == 'assistant' }}{{ m.content")
OPENS = OPENS.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")


@pytest.mark.parametrize(
    ("template", "reply"),
    [
        (CHATML, "<think>\nhm\n</think>\n\nb"),
        (CHATML, "<think>hm</think>b"),
        (OPENS, "hm</think>b"),  # the prompt of some models opens the thought, and their replies begin inside of it
    ],
)
def test_pain_08_an_answer_is_trained_though_the_thought_before_it_is_not(
    recipe_file, prepared, tmp_path, template, reply
):
    (tmp_path / "mine.jinja").write_text(template)
    data = [{"messages": [USER, {"role": "assistant", "content": reply}]}]
    file = recipe_file(data=data, chat_template={"file": "mine.jinja"}, masking=["assistant", {"reasoning": "mask"}])
    assert decoded(prepared(file), trained=True) == "b<|im_end|>"
    assert "hm" in decoded(prepared(file, "masking=assistant"), trained=True)


@pytest.mark.parametrize(
    "reply", ["<think>\nhm\n</think>\n\nb", "hm\n</think>\n\nb", "<think>hm</think>b", "hm</think>b"]
)
def test_pain_08_a_thought_in_the_content_is_shown_once_and_trained_where_inference_has_it(
    recipe_file, prepared, tmp_path, reply
):
    (tmp_path / "mine.jinja").write_text((Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text())
    turns = [USER, {"role": "assistant", "content": reply}]
    file = recipe_file(data=[{"messages": turns * 3}], chat_template={"file": "mine.jinja"})
    ready, said = prepared(file), "<think>\nhm\n</think>\n\nb<|im_end|>"
    # The template leaves earlier thoughts out, so each earlier turn has a row of its own, as inference has it.
    assert [decoded(ready, row, trained=True) for row in range(len(ready.train))] == [said] * 3
    assert [decoded(ready, row).count("<think>") for row in range(len(ready.train))] == [1] * 3


@pytest.mark.parametrize("template", ["chatml", "llama3"])
def test_pain_08_a_reply_that_only_closes_its_thought_gets_one_balanced_block(recipe_file, prepared, template):
    data = [{"messages": [USER, {"role": "assistant", "content": "hm</think>b"}]}]
    control = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    model = {"build": TINY, "add_tokens": control if template == "llama3" else []}
    text = decoded(prepared(recipe_file(data=data, chat_template=template, model=model)), trained=True)
    assert text.startswith("<think>\nhm</think>b")


def test_pain_08_two_thoughts_of_one_turn_are_refused(recipe_file, prepared):
    reply = {"role": "assistant", "content": "<think>hm</think>b", "reasoning_content": "so"}
    expected = r"rows.jsonl:1: messages\[1\].content: holds a thought .* the text would have two. Keep one of them."
    with pytest.raises(DataError, match=expected):
        prepared(recipe_file(data=[{"messages": [USER, reply]}]))


def test_pain_10_rows_of_any_schema_come_out_as_they_were_written(recipe_file, prepared):
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"x": {}}}}}]
    other = [{"type": "function", "function": {"name": "g", "description": "d"}}]
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    text_call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": "one", "y": [1]}'}}
    answer = {"role": "tool", "content": "1", "tool_call_id": "c1", "name": "f"}
    data = [
        {"messages": [USER, {"role": "assistant", "content": "", "tool_calls": [call]}, answer, REPLY], "tools": tools},
        {
            "messages": [USER, {"role": "assistant", "tool_calls": [text_call]}, answer, REPLY],
            "tools": json.dumps(other),
        },
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Part."}]}, REPLY]},
    ]
    ready = prepared(recipe_file(data=data), "data.max_length=1024")
    shown = [decoded(ready, row) for row in range(3)]
    assert '"y": [1]' in shown[1]
    assert "null" not in "".join(shown)
    assert "description" not in shown[0]
    assert "parameters" not in shown[1]
    assert "Part." in shown[2]


def test_pain_10_a_table_s_nulls_for_what_a_row_lacks_are_not_shown_to_the_model(tmp_path, prepared):
    tools = [[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]]
    tools.append([{"type": "function", "function": {"name": "g", "description": "d"}}])
    arguments = [{"x": 1}, {"y": "two"}]
    data = []
    for schemas, given in zip(tools, arguments, strict=True):
        call = {
            "id": "c1",
            "type": "function",
            "function": {"name": schemas[0]["function"]["name"], "arguments": given},
        }
        turns = [USER, {"role": "assistant", "content": "", "tool_calls": [call]}]
        turns += [{"role": "tool", "content": "1", "tool_call_id": "c1"}, REPLY]
        data.append({"messages": turns, "tools": schemas})
    pq.write_table(pa.Table.from_pylist(data), tmp_path / "rows.parquet")
    file = write_recipe(tmp_path)
    table = prepared(file, f"data.train.path={tmp_path / 'rows.parquet'}", "data.max_length=1024")
    write_rows(tmp_path / "rows.jsonl", data)
    lines = prepared(file, "data.max_length=1024")
    assert [decoded(table, row) for row in range(2)] == [decoded(lines, row) for row in range(2)]
    assert "null" not in decoded(table, 0) + decoded(table, 1)


def test_pain_11_tools_that_the_template_leaves_out_stop_the_run(recipe_file, prepared, tmp_path):
    (tmp_path / "mine.jinja").write_text(CHATML)
    tools = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
    data = [{"messages": [USER, REPLY]}, {"messages": [USER, REPLY], "tools": tools}]
    file = recipe_file(data=data, chat_template={"file": "mine.jinja"})
    expected = (
        r"rows.jsonl:2: the tools of the row \(look_up\) are not in the text: the template leaves them out.\n"
        r"    Way out: `chat_template: chatml` renders them .*, or `spans.dropped_tools: warn` trains without the tools"
    )
    with pytest.raises(MaskError, match=expected):
        prepared(file)
    assert prepared(file, "spans.dropped_tools=warn").ledger.splits["train"][0].noted == {"dropped_tools": 1}
    shown = prepared(file, "chat_template=chatml", "data.max_length=512")
    assert "look_up" in decoded(shown, 1)
    assert not shown.ledger.splits["train"][0].noted


def test_pain_11_what_tools_answer_is_never_trained_and_parallel_calls_all_are(recipe_file, prepared):
    calls = [{"type": "function", "id": f"c{n}", "function": {"name": f"f{n}", "arguments": {"n": n}}} for n in (1, 2)]
    answers = [{"role": "tool", "content": f"result {n}", "tool_call_id": f"c{n}"} for n in (1, 2)]
    data = [{"messages": [USER, {"role": "assistant", "tool_calls": calls}, *answers, REPLY]}]
    trained = decoded(prepared(recipe_file(data=data), "data.max_length=512"), trained=True)
    assert "result" not in trained
    assert [name in trained for name in ('"f1"', '"f2"', "Hi.<|im_end|>")] == [True] * 3


def test_pain_16_packed_documents_cannot_see_each_other(recipe_file, prepared, run, monkeypatch):
    file = recipe_file(data=rows(12))
    once = ["train.max_steps=1", "train.learning_rate=0", "train.per_device_train_batch_size=12"]
    apart, packed = run(file, *once), run(file, *once, "data.packing=rows")
    assert packed.log[0]["loss"] == pytest.approx(apart.log[0]["loss"], abs=1e-5)
    for row in prepared(file, "data.packing=rows", "data.max_length=128").train:
        starts = [sum(row["seq_lengths"][:index]) for index in range(len(row["seq_lengths"]))]
        assert [row["labels"][start] for start in starts] == [-100] * len(starts)
    # A model whose attention does not keep documents apart is refused before a step is taken.
    monkeypatch.setattr("sftplug.model.packing_check.TOLERANCE", -1.0)
    with pytest.raises(ModelError, match="documents see each other"):
        run(file, *once, "data.packing=rows")


@pytest.mark.parametrize(
    ("change", "trained"),
    [
        ({"train": False}, ["Hi.<|im_end|>"]),
        ({"weight": 0}, ["Hi.<|im_end|>"]),
        ({"weight": 0.5}, ["First.<|im_end|>Hi.<|im_end|>"]),
        ({}, ["First.<|im_end|>Hi.<|im_end|>"]),
    ],
)
def test_pain_17_each_turn_has_its_own_weight(recipe_file, prepared, change, trained):
    messages = [USER, {"role": "assistant", "content": "First.", **change}, USER, REPLY]
    ready = prepared(recipe_file(data=[{"messages": messages}], masking=["assistant", "message_weights"]))
    assert [decoded(ready, trained=True)] == trained
    assert set(ready.train[0].get("weights", [])) == ({0.0, 0.5, 1.0} if change.get("weight") else set())


def test_pain_17_content_parts_and_rows_have_weights_too(recipe_file, prepared):
    parts = [{"type": "text", "text": "Think."}, {"type": "text", "text": " Answer.", "weight": 0.25}]
    data = [
        {"messages": [USER, {"role": "assistant", "content": parts}], "w": 2.0},
        {"messages": [USER, {"role": "assistant", "content": [parts[0], {**parts[1], "weight": 0}]}], "w": 1.0},
    ]
    file = recipe_file(data=data, masking=["assistant", "message_weights"])
    ready = prepared(file, "data.train.row_weight=w")
    assert set(ready.train[0]["weights"]) == {0.0, 2.0, 0.5}
    # The template puts no "weight" into the prompt, and a part of weight 0 is not trained.
    assert decoded(ready, 1, trained=True).replace(" ", "") == "Think.<|im_end|>"
    with pytest.raises(DataError, match=r"rows\.jsonl:2\): v: is missing\. The row has: messages, w\."):
        prepared(file, "data.train.row_weight=v")


def with_bos(folder, adds):
    """Write a model whose tokenizer has a BOS token, and puts it before every text if it `adds` it."""
    loaded = load_recipe(str(write_recipe(folder)))
    tokenizer = load_tokenizer(loaded.recipe)
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    if adds:
        special = [("<s>", tokenizer.bos_token_id)]
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=special)
    tokenizer.save_pretrained(folder / "model")
    return folder / "model"


def write_recipe(folder, **sections):
    write_rows(folder / "rows.jsonl", rows(2))
    recipe = {
        "model": {"build": TINY},
        "chat_template": "chatml",
        "quantization": "fp32",
        "data": {"train": {"path": "rows.jsonl", "format": "messages"}, "max_length": 256},
        **sections,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "recipe.yaml"


CHATML = "{% for m in messages %}<|im_start|>{{ m.role + '\n' + m.content }}<|im_end|>\n{% endfor %}"
CHATML += "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


@pytest.mark.parametrize("adds", [True, False])
@pytest.mark.parametrize("prints", [True, False])
def test_pain_18_there_is_exactly_the_bos_that_the_model_s_own_template_gives(tmp_path, prepared, adds, prints):
    model = with_bos(tmp_path, adds)
    (tmp_path / "chat.jinja").write_text("{{ bos_token }}" * prints + CHATML)
    file = write_recipe(tmp_path, model=str(model), chat_template={"file": "./chat.jinja"})
    ready = prepared(file)
    tokenizer = AutoTokenizer.from_pretrained(model, chat_template=(tmp_path / "chat.jinja").read_text())
    expected = tokenizer.apply_chat_template(rows(2)[0]["messages"], tokenize=True, return_dict=True)["input_ids"]
    assert ready.train[0]["input_ids"] == expected
    assert ready.train[0]["input_ids"].count(tokenizer.bos_token_id) == prints


@pytest.mark.parametrize("adds", [True, False])
def test_pain_18_plain_text_has_the_tokenizer_s_bos_and_no_second_one(tmp_path, prepared, adds):
    model = with_bos(tmp_path, adds)
    file = write_recipe(tmp_path, model=str(model), masking="all", chat_template="plain")
    write_rows(tmp_path / "rows.jsonl", [{"text": "Once."}])
    ready = prepared(file, "data.train.format=text")
    assert ready.train[0]["input_ids"].count(ready.tokenizer.bos_token_id) == adds
    write_rows(tmp_path / "rows.jsonl", [{"text": "<s>Once."}])
    ready = prepared(file, "data.train.format=text")
    assert ready.train[0]["input_ids"].count(ready.tokenizer.bos_token_id) == 1
    assert ready.ledger.splits["train"][0].noted["BOS of its own"] == adds


def test_pain_19_preparing_is_done_once_and_never_stale(recipe_file, tmp_path, monkeypatch):
    from sftplug.data.prepare import prepare

    def go(*overrides):
        loaded = load_recipe(str(file), overrides)
        return prepare(loaded.recipe, load_tokenizer(loaded.recipe), store=Store(tmp_path / "s", loaded.provenance()))

    file = recipe_file()
    first = go()
    with monkeypatch.context() as patch:
        patch.setattr("sftplug.data.prepare.encoder", None)  # whoever tokenizes, fails
        assert go().train.to_dict() == first.train.to_dict()
        with pytest.raises(TypeError):
            go("data.max_length=100")
    assert not go("model.build.vocab_size=500").ledger.reused  # another tokenizer


def test_pain_23_sources_of_four_formats_mix_with_their_own_masks_in_stated_shares(tmp_path, prepared):
    sources = {
        "alpaca": [{"instruction": f"Say {n}.", "output": f"{n}."} for n in range(20)],
        "sharegpt": [
            {"conversations": [{"from": "human", "value": "A?"}, {"from": "gpt", "value": f"B{n}."}]} for n in range(20)
        ],
        "messages": rows(20),
        "prompt_completion": [{"prompt": f"{n} is", "completion": " a number."} for n in range(20)],
    }
    for name, data in sources.items():
        write_rows(tmp_path / f"{name}.jsonl", data)
    listed = [{"path": f"{name}.jsonl", "format": name, "share": 1} for name in sources]
    listed[0]["masking"] = ["assistant", {"end_of_turn": "mask"}]
    file = write_recipe(tmp_path, data={"train": listed, "mix": {"by": "rows", "stop": "all"}, "max_length": 256})
    ready, again = prepared(file), prepared(file)
    assert ready.train["input_ids"] == again.train["input_ids"]
    assert [(item.rows, item.realised) for item in ready.ledger.mixed] == [(20, 0.25)] * 4
    assert prepared(file, "train.seed=1").train["input_ids"] != ready.train["input_ids"]
    ends = [decoded(ready, row, trained=True).endswith("<|im_end|>") for row in range(len(ready.train))]
    assert ends.count(False) == 40  # the source with a mask of its own, and the plain completions with their EOS


def test_the_table_above_names_tests_that_exist():
    named = set(re.findall(r"\btest_\w+", __doc__))
    tests = "\n".join(file.read_text(encoding="utf-8") for file in Path(__file__).parent.rglob("test_*.py"))
    assert len(named) > 20
    assert named <= set(re.findall(r"^def (test_\w+)", tests, re.MULTILINE))
