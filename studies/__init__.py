"""Study files, one TOML file each: add a study here. sweep/spec.py says what a file may hold."""
