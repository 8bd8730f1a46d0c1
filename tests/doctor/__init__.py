"""Tests of `convlens.doctor`."""
