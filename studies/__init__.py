"""Study files, one TOML file each: add a study here. sweep/study/spec.py says what a file may hold."""
