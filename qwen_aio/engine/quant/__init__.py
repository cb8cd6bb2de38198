"""int8 weights: quantised, compared with fp32, kept on disk."""
