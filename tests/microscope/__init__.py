"""Tests of `convlens.microscope`."""
