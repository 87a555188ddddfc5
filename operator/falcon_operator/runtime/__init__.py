"""Cache, queue, workers and sweep."""
