"""What was trained, on its way to where it is used: files of other formats, each checked against the model itself."""
