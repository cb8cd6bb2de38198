"""What the machine offers: cores and memory, within the limits of its control groups."""
