"""From a classifier and a data set to numbers that can be trusted."""
