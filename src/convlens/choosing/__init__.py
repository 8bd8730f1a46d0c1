"""What nobody has to choose: input, network, length of training and augmentation, each with its reason."""
