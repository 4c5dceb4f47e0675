"""Conversions on many machines: the same plans, in workers that Ray starts."""
