"""The description of a server for programs and people: `/openapi.json` and `/docs`."""
