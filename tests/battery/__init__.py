"""A battery of faults: each row does to the command line what goes wrong in the world, and looks at what follows.

`make battery` runs all rows and writes docs/reliability.md; the quick ones are part of `make test`.
"""
