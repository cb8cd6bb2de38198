"""Which workers there are, and how each of them is."""
