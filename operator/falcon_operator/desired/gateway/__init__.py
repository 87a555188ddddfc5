"""The endpoint of one resource: HAProxy between clients and engines."""
