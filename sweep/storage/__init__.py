"""The database: Optuna's tables, the evaluations table, locks."""
