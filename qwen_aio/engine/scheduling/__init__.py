"""Which sequences run and which rows a step computes. No torch, no text."""
