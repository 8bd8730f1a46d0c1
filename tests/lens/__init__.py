"""Tests of `convlens.lens`."""
