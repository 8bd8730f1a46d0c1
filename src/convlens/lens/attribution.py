"""Where an answer comes from: Grad-CAM, integrated gradients, occlusion.

Owns the three methods, for any function from pictures to logits. All explain one logit, the score before the softmax
(a probability also moves when another class's score does), and all are taken in evaluation mode.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from convlens.lens.hooks import Forward, array_of
from convlens.lens.recording import Values
from convlens.network.grad_cam import grad_cam, last_with_maps, resized

METHODS = ("grad_cam", "integrated_gradients", "occlusion")
STEPS = 256  # of integrated gradients
_BATCH_VALUES = 1 << 20  # values of the inputs of one forward pass: larger ones leave the caches


@dataclass(frozen=True)
class Subject:
    """What is explained: pictures to logits, one normalised picture, the one without evidence that it is compared with,
    and the layer that Grad-CAM looks at (None where no layer has maps above 1×1). `often` is the same function as
    `forward`, in a form that is faster to ask many times."""

    forward: Forward
    x_1CHW: Tensor
    baseline_1CHW: Tensor
    layer_name: str | None
    layer: nn.Module | None
    often: Forward

    @classmethod
    def of(
        cls,
        forward: Forward,
        x_1CHW: Tensor,
        baseline_1CHW: Tensor,
        modules: Mapping[str, nn.Module],
        shapes: Mapping[str, tuple[int, ...]],
        often: Forward | None = None,
    ) -> Self:
        """The subject whose Grad-CAM layer is the last with maps above 1×1; `shapes` are of outputs, in order."""
        last = last_with_maps(shapes)
        return cls(forward, x_1CHW, baseline_1CHW, last, None if last is None else modules[last], often or forward)


def attribution(subject: Subject, method: str, label: int, versus: int | None = None) -> Values | None:
    """One of METHODS for the logit of class number `label`, or (`versus`) for how far it is above that of another:
    float32 (H, W), of integrated gradients (C, H, W).

    None for Grad-CAM where there is no layer for it. Callers put the network in evaluation mode.
    """
    if versus is not None:
        subject = replace(subject, forward=_above(subject.forward, versus), often=_above(subject.often, versus))
    forward, x, baseline = subject.often, subject.x_1CHW, subject.baseline_1CHW
    if method == "integrated_gradients":
        return integrated_gradients(forward, x, baseline, label)
    if method == "occlusion":
        return occlusion(forward, x, baseline, label)
    assert method == "grad_cam", method
    if subject.layer is None:
        return None
    maps_1hw, _ = grad_cam(subject.forward, subject.layer, x.detach(), torch.tensor([label], device=x.device))
    (found,) = resized(maps_1hw, *x.shape[2:])
    map_HW: Values = found
    return map_HW


def _above(forward: Forward, versus: int) -> Forward:
    """Logits (N, K), each less that of one class."""

    def differences(x_NCHW: Tensor) -> Tensor:
        logits_NK = forward(x_NCHW)
        return logits_NK - logits_NK[:, versus, None]

    return differences


def integrated_gradients(
    forward: Forward, x_1CHW: Tensor, baseline_1CHW: Tensor, label: int, steps: int = STEPS
) -> Values:
    """Integrated gradients (Sundararajan et al., 2017, arXiv:1703.01365): float32 (C, H, W).

    (x − baseline) times the mean gradient of the logit along the straight line between them, at the middles of `steps`
    equal parts of it. Completeness: the values add up to logit(x) − logit(baseline), but for what the sum over steps
    misses of the integral.
    """
    difference = x_1CHW - baseline_1CHW
    total = torch.zeros(x_1CHW.shape, dtype=torch.float64)  # on the CPU: not every device has float64
    middles = ((torch.arange(steps, device=x_1CHW.device) + 0.5) / steps).to(x_1CHW.dtype)
    for part in middles.split(_batch_size(x_1CHW)):
        points = (baseline_1CHW + part.view(-1, 1, 1, 1) * difference).requires_grad_()
        (gradients,) = torch.autograd.grad(forward(points)[:, label].sum(), points)
        total += gradients.sum(dim=0, keepdim=True).cpu().double()
    return array_of((difference.detach().cpu().double() * total / steps)[0])


def occlusion(forward: Forward, x_1CHW: Tensor, baseline_1CHW: Tensor, label: int) -> Values:
    """Occlusion (Zeiler & Fergus, 2013, arXiv:1311.2901): float32 (H, W).

    A patch of the baseline is laid over the picture, place after place; each pixel gets the mean drop of the logit over
    the patches that cover it. Positive where covering costs evidence.
    """
    height, width = x_1CHW.shape[2:]
    boxes = list(patches(height, width))
    drops = []
    with torch.no_grad():
        whole = forward(x_1CHW)[0, label]
        for start in range(0, len(boxes), _batch_size(x_1CHW)):
            part = boxes[start : start + _batch_size(x_1CHW)]
            covered = x_1CHW.repeat(len(part), 1, 1, 1)
            for image, (rows, columns) in zip(covered, part, strict=True):
                image[:, rows, columns] = baseline_1CHW[0, :, rows, columns]
            drops.append((whole - forward(covered)[:, label]).cpu().double())
    total, count = np.zeros((height, width)), np.zeros((height, width))
    for (rows, columns), drop in zip(boxes, torch.cat(drops).tolist(), strict=True):
        total[rows, columns] += drop
        count[rows, columns] += 1
    found: NDArray[np.float32] = (total / count).astype(np.float32)
    return found


def patches(height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """The places of the patch: a seventh of each side, moved by half of itself, the last one against the edge."""
    axes = []
    for size in (height, width):
        side = max(1, round(size / 7))
        step = max(1, side // 2)
        starts = sorted({*range(0, size - side, step), size - side})
        axes.append([slice(start, start + side) for start in starts])
    return ((rows, columns) for rows in axes[0] for columns in axes[1])


def _batch_size(x_1CHW: Tensor) -> int:
    return max(1, min(128, _BATCH_VALUES // max(1, x_1CHW.numel())))
