"""The tuner: ask -> launch -> report -> prune -> study.tell, the one writer of its study."""
