"""Makes an NVFP4 checkpoint of a Falcon-H1 in BF16, with NVIDIA ModelOpt, one tensor at a time."""
