"""A training from its folder to its last step."""
