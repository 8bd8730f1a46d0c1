"""What a model needs to answer where it is used: an ONNX file, Pillow and numpy. No module here imports torch."""
