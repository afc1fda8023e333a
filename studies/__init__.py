"""Shipped studies, one TOML file each: add one here. sweep/study/spec.py lists the keys."""
