"""Optuna Dashboard on a sweep's database: server, access, notes and figures."""
