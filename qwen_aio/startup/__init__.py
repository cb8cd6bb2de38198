"""What a process does before it serves: its environment, flags, log and addresses."""
