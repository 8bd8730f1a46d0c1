"""A picture's bytes to framed pixels."""
