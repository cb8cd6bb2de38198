"""Keys and values: which slot holds which token, and the memory of the slots."""
