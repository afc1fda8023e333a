"""The machine: files, devices, memory, signals."""
