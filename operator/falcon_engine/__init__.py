"""What is known of the engine: profiles, flags, checkpoints, failures, and the launcher. Standard library only."""
