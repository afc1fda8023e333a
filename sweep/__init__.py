"""Search over training runs: ask, launch, report, prune, tell, compare. Imports gpt."""
