"""Tests of `convlens.training`."""
