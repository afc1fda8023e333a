"""From text to tokens: corpora, tokenizers, batches, validation sets."""
