"""A GPT and its training, by itself: python -m gpt.train RUN_DIR."""
