"""Looks on single frames and pictures, to be seen before a conversion is begun."""
