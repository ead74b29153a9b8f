"""A small mixture of experts."""


def experts(recipe_file, tmp_path, **saves):
    """Return a recipe that trains a mixture of experts, whose files have other names than its memory."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from sftplug.model.loading import base_model_path
    from sftplug.recipe import load_recipe

    file = recipe_file()
    tokenizer = AutoTokenizer.from_pretrained(base_model_path(load_recipe(str(file)).recipe))
    config = AutoConfig.for_model(
        "qwen3_moe",
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        moe_intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        num_experts=2,
        num_experts_per_tok=1,
        max_position_embeddings=256,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "experts")
    tokenizer.save_pretrained(tmp_path / "experts")
    train = {"max_steps": 6, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "logging_steps": 1}
    train |= saves or {"save_strategy": "steps", "save_steps": 3, "save_total_limit": 0}
    return recipe_file(model=str(tmp_path / "experts"), adapter="full", train=train)
