"""The HTTP face that worker and balancer share: guard, gate, the routes of /v1, streams, and how a server ends."""
