"""`python -m convlens` is the command line."""

from convlens.cli import entry

entry()
