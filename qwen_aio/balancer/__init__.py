"""HTTP in front of many workers. Loads no torch."""
