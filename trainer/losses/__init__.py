"""Losses as pure functions of tensors, and what they need."""
