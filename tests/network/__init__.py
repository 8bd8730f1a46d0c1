"""Tests of `convlens.network`."""
