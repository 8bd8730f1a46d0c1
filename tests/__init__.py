"""Tests mirror src/; each docstring states the behaviour that must hold."""
