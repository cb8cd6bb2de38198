"""What leaves this process: nothing, but for this machine and the servers that it was told to ask."""
