"""This engine beside others that people run on a CPU. See __main__.py."""
