"""Search over training runs: ask, launch, report, prune, tell, compare. Imports gpt; gpt never imports this."""
