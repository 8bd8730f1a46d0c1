"""The embedded MNIST: four IDX files, xz-compressed, checked against the published SHA-256 when unpacked.

Made by Yann LeCun, Corinna Cortes and Christopher J. C. Burges; CC BY-SA 3.0 (see LICENSE beside this file).
"""

import lzma
from importlib import resources

from convlens.errors import DataError
from convlens.files import sha256_of

SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def read(name: str) -> bytes:
    """The uncompressed bytes of one of the four files. Raises DataError where the installation is damaged."""
    try:
        raw = lzma.decompress(resources.files(__name__).joinpath(f"{name}.xz").read_bytes())
    except (OSError, lzma.LZMAError) as error:
        raise DataError(f"the embedded MNIST is damaged ({name}): reinstall convlens") from error
    if sha256_of(raw) != SHA256[name]:
        raise DataError(f"the embedded MNIST is damaged ({name}: wrong SHA-256): reinstall convlens")
    return raw
