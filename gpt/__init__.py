"""A GPT and its training. Knows nothing of sweeps, Optuna, plots or command lines."""
