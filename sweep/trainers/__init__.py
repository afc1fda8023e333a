"""Trainers: what a trial runs."""
