"""One engine behind HTTP, and its heartbeat."""
