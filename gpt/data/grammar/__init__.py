"""The built-in corpus: a grammar of stories with exact log-probabilities."""
