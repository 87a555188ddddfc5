"""Pure builders of the objects that the operator owns, one file an object kind."""
