"""The HTTP side that worker and balancer share: guard, gate, /v1 routes, streams, shutdown."""
