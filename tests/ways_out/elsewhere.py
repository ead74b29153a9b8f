"""Advice that is followed in another test, that cannot be followed here, and texts that only look like advice."""

FOLLOWED = {
    "`sftplug train` resumes it.": "test_a_signal_ends_a_run_after_a_checkpoint_and_says_how_to_go_on",
    "must return numbers, and for {} returned {}: make it": "test_what_a_component_returns_or_raises_by_mistake",
    "`sftplug eval {}` measures the replies, in one process.": "test_a_metric_that_cannot_score_costs_the_run_nothing",
    "`sftplug eval` measures it anew.": "test_a_metric_that_cannot_score_costs_the_run_nothing",
    "{} was written by {}, and {} would resume: with other batches": "test_another_number_of_processes_does_not_go_on",
    "Run the same command again to resume from there": "test_a_signal_ends_a_run_after_a_checkpoint_and_says_how_to_go_on",
    "two plugins are named '{}': {}. Uninstall one of them": "test_a_plugin_name_that_two_distributions_claim",
    "packing would let documents see each other in this model": "test_families_that_leak_are_refused_by_name",
    "it is built for sftplug {}, and this is sftplug {}.": "test_a_plugin_for_a_newer_sftplug_is_not_even_imported",
    "{}: changed while the rows were read": "test_rows_that_change_while_they_are_read_are_not_kept",
    "`sftplug train {} --output {}` resumes it.": "test_a_run_without_a_result_is_gone_on_with",
    "`sftplug export {} {}` writes it again.": "test_an_export_that_fails_costs_the_run_nothing_and_is_repeated_as_it_says",
    "`sftplug export RUN {} OPTION=VALUE --output PATH` writes another.": "test_one_exporter_listed_twice_is_refused",
    "{} Uninstall one plugin, or ask its author for another name.": "test_a_name_that_two_claim_is_an_error_that_names_both",
    "Run the same command again to resume, or to start over": "test_a_signal_ends_a_run_after_a_checkpoint_and_says_how_to_go_on",
    "options go with a name, and an object has its own. Set them there.": "test_python_exports_by_name_and_by_an_object_of_a_cell",
    "Cut it into shorter ones.": "test_a_conversation_of_too_many_prompts_is_refused_before_one_is_rendered",
    "`sftplug merge` gives the head its own": "test_an_update_of_the_embeddings_leaves_the_head_as_it_was",
    "has no chat template. Name one: chat_template='chatml'": "test_encode_takes_the_template_that_it_asks_for",
    "Put it into a plugin file, and name that under `plugins:`.": "test_a_plugin_file_is_the_way_to_other_processes",
    "Go on in that program, or put them into a plugin file": "test_a_plugin_file_is_the_way_to_other_processes",
    "overwrite deletes it: choose one.": "test_an_interrupt_saves_a_checkpoint_and_the_next_call_goes_on",
    "a turn has no stop token, and the tokenizer has no EOS": "test_encode_refuses_what_the_pipeline_refuses",
    "the rate rises over {} updates, and the run has {}": "test_a_warmup_that_outlasts_the_run_is_told",
    "what this recipe trains cannot be switched off": "test_what_cannot_be_switched_off_is_no_adapter_beside_a_base",
    "and its gradient does not reach them: leave out `detach`": "test_what_a_component_returns_or_raises_by_mistake",
    "is the class {}: give an object of it": "test_a_component_may_be_an_object_of_a_class_that_no_plugin_offers",
    "Without real weights: `model: {build: tiny}`": "test_what_is_missing_is_told_with_the_commands_and_the_other_way",
    "give `without` to `load`, or the run's folder.": "test_python_leaves_plugins_out_too",
    "Use `sftplug.ParameterCounts`": "test_an_old_name_stands_for_the_one_that_its_warning_names",
    "Use `sftplug.count_parameters`": "test_an_old_name_stands_for_the_one_that_its_warning_names",
}
"""Text -> the test that follows it, in the other test files."""

FOLLOWED_FILES = {
    "sftplug/plugin/deprecation.py": "test_an_old_name_stands_for_the_one_that_its_warning_names",
    "sftplug/training/callback_state.py": "test_what_a_callback_remembers_and_no_checkpoint_can_hold_is_refused_at_once",
    "sftplug/training/model_state.py": "test_a_checkpoint_without_the_rest_and_one_of_another_base_are_refused",
    "sftplug/training/preflight/__init__.py": "test_an_option_that_nothing_heeds_is_a_problem",
    "sftplug/training/preflight/best.py": "test_an_option_that_nothing_heeds_is_a_problem",
    "sftplug/training/preflight/trials.py": "test_an_option_that_nothing_heeds_is_a_problem",
    "sftplug/training/preflight/ignored_options.py": "test_an_option_that_nothing_heeds_is_a_problem",
    "sftplug/training/readback.py": "test_an_adapter_that_plain_loading_does_not_give_back_is_refused_before_it_is_trained",
    "sftplug/recipe/train_table.py": "test_the_way_out_is_one",
    "sftplug/recipe/deepspeed.py": "test_what_deepspeed_would_send_or_write_is_refused",
    "sftplug/storage/disk.py": "test_a_limit_on_files_is_no_full_disk",
    "sftplug/run/failure.py": "test_a_run_whose_output_nobody_reads_any_more_ends_in_words_and_goes_on",
    "sftplug/run/inputs.py": "test_no_run_writes_where_its_rows_are_read",
    "sftplug/run/place.py": "test_overwrite_deletes_nothing_that_no_run_wrote",
}
"""File -> the test that follows its advice, one parameter after the other."""

CANNOT = {
    "`sftplug export {} NAME` writes the model as {}, in one process.": "needs a launcher that is not sftplug's",
    "{} names code on the Hub, which is not run.": "needs the Hub",
    "names the attention {}: code on the Hub, which is not run.": "needs the Hub",
    "the prompt holds the control token {}, and this tokenizer": "needs a tokenizer that no model has",
    "If they are one and the same model, set `base_model_name_or_path`": "needs a model under two names",
    "What is missing would be filled at random.": "needs another model",
    "processes: {} on this node, which has {} accelerator{}.": "needs GPUs to count",
    "one process sees {} GPUs and would share each batch": "needs two GPUs",
    "context and sequence parallelism cut rows into pieces": "needs GPUs that share a row",
    "strategy: on CPUs, fsdp2 is done by transformers, from {} on": "needs an older transformers",
    "Run: pip install '{}'": "needs the package index",
    "which is not installed. Run: {}": "needs the package index",
    "it is damaged, or of another version. Run: pip install": "needs the package index",
    "you are not logged in to the Hub: run `hf auth login` first.": "needs the Hub",
    "the code of {} lies in several repositories": "needs the Hub",
    "Choose an --output on a file system that has locks.": "needs a file system without locks",
    "has no other weights: leave out --base original.": "needs a base that is stored quantized",
    "Fix the row, or set `data.special_tokens_in_content: allow`": "needs a tokenizer that no model has",
    "It holds weights that were rounded for llama.cpp": "needs another model",
    "Name a text model instead.": "needs another model",
    "nothing that was tried makes it fit": "needs another device or model",
    "there is no C++ compiler ({}). Install one": "needs a machine without a compiler",
    "torch has Muon from {} on, and this is torch {}.": "needs an older torch",
    "would not be used. Take it out of that configuration, or out of the recipe.": "needs a launcher's own DeepSpeed",
    "DeepSpeed makes one long vector of the parameters, and optimizer": "needs a launcher's own DeepSpeed",
}
"""Text -> what it needs that no test has."""

NO_ADVICE = (
    "{} Fix it, or start over.",  # of a file that somebody else has changed
    "train the others, by patterns of their names, with the adapter `freeze`",  # what no check has foreseen
    "leave such modules out of the adapter",
    "`sftplug train` resumes it, unless it is running still.",
    "is of the type {}, which JSON does not have. Make it text",  # to the author of a source
    "train.learning_rate ({}): {} is {} what is usual for adapter",
    "is a folder behind a symbolic link, which is not followed. Name that folder as a `path` of its own",
    "{}\nRun the command again with -v for the traceback.",
    "train an adapter in place of the weights: another result",
    "Merge lora module to .*-bit linear",
    "list of {}",
    ", or give one another `name`",
    "Written by `sftplug schema` for: {}.",
    "Name the capital of {e}.",
    "Name the continent of {e}.",
    "Say what the capital of {e} is.",
    "Name the language of {e}.",
)
"""Texts that only look like advice, or that stand in another one."""
