"""How fast the operator reconciles, how much it writes, and how much memory it takes, on a real API server."""
