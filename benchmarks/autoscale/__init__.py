"""Autoscaling rules side by side in a simulator: this operator's, its peers', static fleets and an oracle."""
