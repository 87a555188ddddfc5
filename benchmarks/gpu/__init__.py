"""Benchmarks of the engine on one machine with GPUs, started as the operator starts it."""
