"""Grad-CAM: where in a picture the evidence for a class lies, at the resolution of a layer's maps.

Owns the method and the choice of its layer.
"""

from collections.abc import Callable, Mapping
from math import prod

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn


def last_with_maps(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The layer that Grad-CAM looks at, of outputs' shapes in order: the last with maps above 1×1."""
    return next(
        (name for name in reversed(list(shapes)) if len(shapes[name]) == 3 and prod(shapes[name][1:]) > 1), None
    )


def grad_cam(
    forward: Callable[[Tensor], Tensor], layer: nn.Module, x_NCHW: Tensor, labels_N: Tensor | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Grad-CAM (Selvaraju et al., 2017, arXiv:1610.02391) of a class, int64 (N,), or of each answer: float32 (N, h, w),
    from 0 on; and the logits (N, K).

    The maps of a layer, each weighted by the mean gradient of the logit over it, summed, negative values cut off. It
    has the size of the layer's maps; `resized` brings it to the picture's.
    """
    kept: list[Tensor] = []

    def begin_here(module: nn.Module, inputs: object, output: Tensor) -> Tensor | None:
        if kept:
            return None  # it runs again
        kept.append(output.detach().requires_grad_())
        return kept[0].clone()  # what comes after it may work in place

    hook = layer.register_forward_hook(begin_here)
    try:
        with torch.enable_grad():
            logits_NK = forward(x_NCHW)
    finally:
        hook.remove()
    labels_N = logits_NK.argmax(dim=1) if labels_N is None else labels_N
    logit = logits_NK.gather(1, labels_N[:, None]).sum()  # of one picture no other's map moves it
    (gradient,) = torch.autograd.grad(logit, kept[0], allow_unused=True, materialize_grads=True)
    weighted = kept[0].detach() * gradient.mean(dim=(2, 3), keepdim=True)
    return _array_of(weighted.sum(dim=1).relu()), _array_of(logits_NK.detach())


def resized(maps_Nhw: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Small maps at the pictures' size, bilinear: float32 (N, H, W)."""
    maps_N1hw = torch.from_numpy(maps_Nhw)[:, None]
    return _array_of(F.interpolate(maps_N1hw, (height, width), mode="bilinear", align_corners=False)[:, 0])


def _array_of(tensor: Tensor) -> NDArray[np.float32]:
    return np.array(tensor.float().cpu().numpy(), order="C")
