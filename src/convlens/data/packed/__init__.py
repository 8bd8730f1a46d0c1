"""Samples to a packed data set, and the set itself."""
