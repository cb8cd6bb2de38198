"""int8 weights: made, compared with fp32, kept on disk."""
