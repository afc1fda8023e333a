"""Study files, one TOML file each. Add a study by adding a file; README.md has every key."""
