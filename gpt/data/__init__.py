"""Data, from text to batches: corpora, tokenizers, token files, validation sets."""
