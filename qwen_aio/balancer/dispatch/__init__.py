"""A request on its way: the queue's head, a slot on a worker, attempts, retries."""
