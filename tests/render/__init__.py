"""Tests of `convlens.render`."""
