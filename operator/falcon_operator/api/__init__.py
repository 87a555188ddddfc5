"""The resource as pydantic models, and the names, labels and reasons that the whole operator shares."""
