"""What operators see of the balancer: one page, the same figures as JSON, and the buttons."""
