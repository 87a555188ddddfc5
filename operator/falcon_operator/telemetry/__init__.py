"""Metrics, logs and the endpoints that show them."""
