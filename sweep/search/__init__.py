"""Arms, samplers and pruners: the next trial's parameters, and the trials to stop."""
