"""Weights as arrays of numpy, from a checkpoint or from what is kept of one: no torch."""
