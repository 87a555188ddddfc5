"""Talking to the API server: client, server-side apply, events."""
