"""Token ids and tensors. torch lives here and only here; no tasks, no HTTP."""
