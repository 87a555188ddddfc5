"""The falcon operator."""
