"""Processes that are started, kept alive and ended together. Knows neither what they do nor torch."""
