"""Backends: where a trial runs."""
