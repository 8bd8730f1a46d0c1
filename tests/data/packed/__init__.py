"""Tests of `convlens.data.packed`."""
