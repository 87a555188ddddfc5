"""The autoscaler's decision: how many engines, and why. Pure: the simulator runs the same code as the operator."""
