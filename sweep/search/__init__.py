"""Arms, samplers and pruners: the next trial's parameters, and which trials are hopeless."""
