"""Tests of `convlens.choosing`."""
