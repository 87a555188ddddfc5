"""Weights in another number format: what an NVFP4 checkpoint holds, as BF16 or as FP8. Needs torch."""
