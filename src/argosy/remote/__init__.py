"""Somebody else's registry: HTTP, credentials, and the distribution protocol as a client sees it."""
