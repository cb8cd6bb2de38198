"""Models of other architectures, computed by transformers: correct before fast."""
