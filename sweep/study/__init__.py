"""Studies: what a study file declares."""
