"""Makes vLLM's tuned file for the Mamba state update on the GPU that is there; runs where vLLM and torch are."""
