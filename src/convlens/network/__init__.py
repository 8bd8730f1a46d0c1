"""From a plan to a torch network."""
