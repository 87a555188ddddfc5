"""What is read from engine pods over HTTP."""
