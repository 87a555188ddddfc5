"""Plugins that make vLLM load NVFP4 Falcon-H1 where it does not by itself; the launcher says which are wanted."""
