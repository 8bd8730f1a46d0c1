"""Tests of `convlens.data.image`."""
