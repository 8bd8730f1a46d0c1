"""The microscope: a local web page that opens a network up. `server.py` answers it, `page/` is what it is."""
