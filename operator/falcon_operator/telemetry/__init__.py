"""Metrics, logs and the health endpoints."""
