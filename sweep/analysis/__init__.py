"""From the database to tables."""
