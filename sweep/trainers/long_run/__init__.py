"""A final training that is larger, or longer, than what was tuned."""
