"""One engine that serves HTTP, and its heartbeat."""
