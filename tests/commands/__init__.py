"""Tests of `convlens.commands`."""
