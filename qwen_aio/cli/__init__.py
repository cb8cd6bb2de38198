"""Composition root: flags -> settings -> finished objects -> run. One small file per command."""
