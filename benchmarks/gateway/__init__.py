"""What the gateway costs, and how soon it notices: the real HAProxy on loopback, in front of fake engines."""
