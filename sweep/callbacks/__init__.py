"""Callbacks of a sweep: terminal, plain lines, JSON lines, experiment trackers."""
