"""Tests of `convlens.architecture`."""
