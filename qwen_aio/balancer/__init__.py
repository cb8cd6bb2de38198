"""HTTP in front of many workers. Loads no torch.

All of it is owned by the event loop. What awaits nothing is atomic, so there are no locks.
"""
