"""What is reached over a port: who is let in, and the prediction server. No module here imports torch by itself."""
