"""The key-value cache: which slot holds which token, and the memory of the slots."""
