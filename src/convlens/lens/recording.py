"""What one picture became in each layer: arrays that arithmetic, pictures and the page read without torch.

Owns the form of a recording. How one is made is `record.py`'s business.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convlens.architecture.plan import Plan
from convlens.data.image.decode import Pixels
from convlens.metrics import Scaling, softmax

Values = NDArray[np.float32]


@dataclass(frozen=True)
class Recording:
    """What one framed picture (uint8 (H, W, C)) became in each layer of a network.

    `mean` and `std` are those of the normalisation, per channel. `values` holds float32 arrays without N by address:
    `INPUT` is the normalised picture (C, H, W), a layer's maps are (C, h, w), its vector (K,); residuals stand for
    their sums. `tensors` are the network's own, as in a model file; `scaling` is what is done to its logits.
    """

    plan: Plan
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image: Pixels
    values: Mapping[str, Values]
    tensors: Mapping[str, NDArray[np.float32]]
    scaling: Scaling = Scaling()

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """float64 (K,), of the calibrated logits."""
        found: NDArray[np.float64] = softmax(self.scaling.of(self.logits[None]))[0]
        return found

    @property
    def logits(self) -> Values:
        """float32 (K,)."""
        return self.values[list(self.values)[-1]]
