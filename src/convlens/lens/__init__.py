"""From a trained network and one picture to what happens inside."""
