"""Tests of `convlens.data`."""
