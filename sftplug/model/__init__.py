"""The base model: its files, tokenizer, configuration and weights; new tokens; what it is made of; how it is asked."""
