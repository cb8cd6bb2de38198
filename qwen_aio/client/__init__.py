"""HTTP clients of a worker or a balancer: one for asyncio, one that blocks."""
