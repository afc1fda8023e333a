"""The commands of squen-sweep by what they are for; sweep/cli.py puts them together."""
