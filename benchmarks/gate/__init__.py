"""How long it takes to say which nodes can run an engine and what it holds there."""
