"""The Kubernetes API: connection, client, server-side apply, events."""
