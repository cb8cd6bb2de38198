"""Finds the fastest way to run the service on this machine."""
