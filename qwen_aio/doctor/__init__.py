"""Checks of this machine and installation, for a start with given settings. Starts nothing, and imports no torch."""
