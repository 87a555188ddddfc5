"""What is read from the pods themselves."""
