"""Tests of `convlens.data.sources`."""
