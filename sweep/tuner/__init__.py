"""The tuner: ask -> launch -> report -> prune -> tell, the one writer of a study's storage."""
