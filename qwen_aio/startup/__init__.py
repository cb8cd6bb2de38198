"""The start of a process: its environment, flags, log, addresses and exit status."""
