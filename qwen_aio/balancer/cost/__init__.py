"""What requests cost, and which worker a policy prefers."""
