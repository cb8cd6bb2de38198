"""Below the application: sockets, connections, request targets, reverse proxies."""
