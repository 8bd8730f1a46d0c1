"""From a network and packed images to trained weights."""
