"""The HTTP face that worker and balancer share: guard, door, the routes of /v1, streams, and how a server ends."""
