"""Processes that are started, kept alive and ended together. Knows neither their work nor torch."""
