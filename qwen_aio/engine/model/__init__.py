"""The forward pass and its weights, in torch."""
