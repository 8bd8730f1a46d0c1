"""Tests of `convlens.evaluation`."""
