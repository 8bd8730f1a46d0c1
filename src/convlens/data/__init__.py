"""From files to a packed data set."""
