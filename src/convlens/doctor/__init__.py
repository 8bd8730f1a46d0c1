"""The data doctor: what is wrong with a data set, and what would falsify a score measured on it."""
