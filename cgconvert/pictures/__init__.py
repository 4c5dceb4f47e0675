"""A set of pictures through the network: plan, pipeline, result."""
