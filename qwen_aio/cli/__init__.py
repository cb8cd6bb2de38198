"""Composition root: flags -> settings -> finished objects -> run. One small file per command.

The exceptions are two processes that only other programs start: forkserver.py and prepare_weights.py.
"""
