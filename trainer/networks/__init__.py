"""Discriminators, and what networks start from and become."""
