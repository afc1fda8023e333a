"""Files, devices, memory and signals of the machine."""
