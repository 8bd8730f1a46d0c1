"""The outputs of the layers that a training leaves as they are: computed once for each image, and kept.

Owns the computing (inference mode, stored statistics, batch norm folded into the convolution before it), the file in
the cache that holds it, and what that file is keyed by: whatever its bits depend on. A file that is damaged is made
anew. Knows nothing of training.
"""

import copy
import itertools
import json
import platform
from collections import OrderedDict
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from convlens import files
from convlens.augmentation import Augmentation, Draw
from convlens.data.packed.image_rows import ImageRows, key_of
from convlens.errors import TrainingError
from convlens.network.build import ChainModule, Network, tensors_of
from convlens.network.compute import Compute
from convlens.network.forward import batch_size_of
from convlens.progress import Progress
from convlens.text import shown

_FORMAT_VERSION = 1
_BATCH_SIZE, _MAX_VALUES = 256, 1 << 24  # the caches of a CPU hold little more of one layer's output
_MOST_CHECKED_BYTES = 1 << 30  # of a file: of larger ones some rows are looked at
KEPT_BYTES = 8 << 30  # in the cache; the files that were used longest ago go first


@dataclass(frozen=True)
class View:
    """What happens to each image before: nothing, or the draw number `number` of an augmentation under a seed."""

    augmentation: Augmentation = field(default_factory=Augmentation)
    number: int = 0
    seed: int = 0

    def key(self) -> list[Any]:
        """As JSON; the same for every view that changes nothing."""
        return [asdict(self.augmentation), self.number, self.seed] if self.augmentation.kinds else []

    def draws(self, num_images: int) -> dict[str, Draw]:
        """What each kind of augmentation does to each image."""
        found = {}
        for kind in self.augmentation.kinds:
            stream = np.random.SeedSequence([self.seed, self.number, kind.stream])
            found[kind.name] = kind.draw(np.random.Generator(np.random.PCG64(stream)), num_images, self.augmentation)
        return found


AS_THEY_ARE = View()


def frozen_outputs(
    network: Network, first: int, images_NHWC: ImageRows, compute: Compute, bar: Progress, view: View = AS_THEY_ARE
) -> ImageRows:
    """What the outermost layers before number `first` make of images: (N, h, w, C) or (N, C), mapped from the cache.

    float32, or under bfloat16 its bits as uint16 (`tensor_of` reads both). Computed at a first call, with a bar, and
    then read: `compute`'s device, precision and threads are among what it is keyed by. Raises DataError for images that
    are not those that were packed, TrainingError for outputs that are not finite, StorageError where the disk is too
    small.
    """
    folder = files.make_folder(files.cache_folder() / "frozen")
    path = folder / f"{_key(network, first, images_NHWC, compute, view)}.npy"
    with files.lock(path.with_suffix(".lock")):
        if files.is_file(path):
            if (found := _read(path, network, first, len(images_NHWC), compute)) is not None:
                files.touch(path)
                return found
            bar.line(f"{shown(path.name)} in the cache is damaged: computed anew")
        files.remove_leftovers(folder, of=path.name)  # of a process that was killed while it computed these
        _compute(path, network, first, images_NHWC, compute, bar, view)
        found = _read(path, network, first, len(images_NHWC), compute)
        assert found is not None, "it was just written"
        return found


def images_per_s(network: Network, first: int, compute: Compute) -> float:
    """How many images a second the layers before number `first` take on a machine that does nothing else, by the faster
    of two batches after a first. Callers work inside `settled(compute.for_timing)`."""
    layers, batch_size = _ready(network, first, compute)
    timed, (channels, height, width) = compute.for_timing, network.plan.input_shape
    block = torch.zeros((batch_size, height, width, channels), dtype=torch.uint8, device=compute.device)
    seconds = []
    with torch.inference_mode():
        for _ in range(3):
            started = timed.clock()
            _array(layers(network.normalise(block).to(_float_of(compute))))
            seconds.append(timed.clock() - started)
    num_operations = sum(1 for node in network.plan.nodes[:first] for _ in node.leaves())
    return batch_size / compute.all_threads_s(max(min(seconds[1:]), 1e-6), num_operations)


def _float_of(compute: Compute) -> torch.dtype:
    return torch.bfloat16 if compute.precision == "bfloat16" else torch.float32


def _ready(network: Network, first: int, compute: Compute) -> tuple[nn.Module, int]:
    """The layers before `first`, ready to be asked, and the images that a batch for them has."""
    most_values = _MAX_VALUES if compute.device == "cpu" else 16 * _MAX_VALUES
    batch_size = batch_size_of(network.plan.nodes[:first], _BATCH_SIZE, most_values)
    return folded(network, first).to(_float_of(compute)), batch_size


def _key(network: Network, first: int, images_NHWC: ImageRows, compute: Compute, view: View) -> str:
    """SHA-256 of all that the outputs depend on."""
    assert images_NHWC.keys is not None, "packed images have them"
    names = {node.address for node in network.plan.nodes[:first]}
    weights = {
        name: files.sha256_of(np.ascontiguousarray(tensor.detach().cpu().numpy()).data.cast("B"))
        for name, tensor in tensors_of(network).items()
        if name.partition(".")[0] in names
    }
    device = torch.cuda.get_device_name(compute.device) if compute.device.startswith("cuda") else compute.device
    machine = [platform.machine(), torch.backends.cpu.get_cpu_capability(), device, torch.__version__]
    layers = [str(node.layer) for node in network.plan.nodes[:first]]
    statistics = [network.mean.flatten().tolist(), network.std.flatten().tolist()]
    images = [files.sha256_of(images_NHWC.keys.tobytes()), images_NHWC.shape]
    parts = [
        _FORMAT_VERSION,
        layers,
        weights,
        statistics,
        images,
        view.key(),
        replace(compute, processes=1).to_json(),
        machine,
    ]
    return files.sha256_of(json.dumps(parts, sort_keys=True).encode())[:32]


# ---------------------------------------------------------------- the file


def _shape(network: Network, first: int) -> tuple[int, ...]:
    """Of one image's outputs, channels last."""
    shape = network.plan.nodes[first - 1].output_shape
    return (*shape[1:], shape[0])


def _dtype(compute: Compute) -> np.dtype[Any]:
    return np.dtype("<u2" if compute.precision == "bfloat16" else "<f4")


def _read(path: Path, network: Network, first: int, num: int, compute: Compute) -> ImageRows | None:
    """The outputs that a file holds; None where they are not those that were written."""
    try:
        keys = np.load(_keys_path(path), allow_pickle=False)
        mapped = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except Exception:  # NumPy's reading of a header raises whatever its parsing runs into
        return None
    wanted = (num, *_shape(network, first))
    if mapped.shape != wanted or mapped.dtype != _dtype(compute) or keys.shape != (num,) or keys.dtype != np.uint64:
        return None
    rows = ImageRows(mapped, np.arange(num), keys, path, "remove it, and it is computed anew")
    some = rows.only(np.arange(num) % max(1, -(-mapped.nbytes // _MOST_CHECKED_BYTES)) == 0)
    return None if some.damaged().any() else rows


def _keys_path(path: Path) -> Path:
    return path.with_suffix(".keys.npy")


def _compute(
    path: Path, network: Network, first: int, images_NHWC: ImageRows, compute: Compute, bar: Progress, view: View
) -> None:
    """Write the outputs, and after them the keys of their rows: without those the file counts as damaged."""
    num, shape, dtype = len(images_NHWC), _shape(network, first), _dtype(compute)
    num_bytes = num * int(np.prod(shape)) * dtype.itemsize
    _make_room(path.parent, num_bytes)
    files.remove_file(_keys_path(path))
    layers, batch_size = _ready(network, first, compute)
    draws, keys = view.draws(num), np.zeros(num, np.uint64)
    seen = f", view {view.number + 1}" if view.augmentation.kinds else ""
    bar.start(f"outputs of the frozen layers{seen}", num, unit="images")

    def write(file: BinaryIO) -> None:
        header = {"descr": dtype.str, "fortran_order": False, "shape": (num, *shape)}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, num, batch_size):
            part = slice(start, min(start + batch_size, num))
            images_NHWC.check(part)
            block = torch.from_numpy(np.array(images_NHWC[part])).to(compute.device)
            for kind in view.augmentation.kinds:
                drawn = torch.from_numpy(draws[kind.name][part]).to(compute.device)
                block = kind.apply(torch, block, drawn, view.augmentation)
            outputs = _array(layers(network.normalise(block).to(_float_of(compute))))
            keys[part] = [key_of(one) for one in outputs]
            file.write(outputs.data)
            bar.advance(len(outputs))

    with torch.inference_mode():
        files.write_with(path, write)
    files.write_with(_keys_path(path), lambda file: np.save(file, keys))


def _array(outputs: Tensor) -> NDArray[Any]:
    """Outputs, channels last, as they are kept. Raises TrainingError."""
    if not bool(outputs.isfinite().all()):
        raise TrainingError("the outputs of the frozen layers are not finite: these weights do not fit such pictures")
    outputs = outputs.movedim(1, -1).contiguous().cpu()
    return outputs.view(torch.uint16).numpy() if outputs.dtype == torch.bfloat16 else outputs.float().numpy()


def _make_room(folder: Path, num_bytes: int) -> None:
    """Remove what was used longest ago, until this fits into what the cache may hold. Raises StorageError."""
    old = [found for found in files.by_last_use(folder) if found[0].suffix == ".npy"]
    total = num_bytes + sum(size for _, size in old)
    for path, size in old:
        if total <= KEPT_BYTES or path.name.endswith(".keys.npy"):
            continue
        for name in (path, _keys_path(path), path.with_suffix(".lock")):
            files.remove_file(name)
        total -= size
    files.check_room(folder, num_bytes)


# ---------------------------------------------------------------- the layers


def folded(network: Network, first: int | None = None) -> nn.Module:
    """A copy of the layers before number `first` (None: of all), from normalised images on, in evaluation mode.

    Each batch norm is folded into the convolution before it: scale and shift become part of its weights and bias (Jacob
    et al., 2018, arXiv:1712.05877, section 3.2). The outputs are those of the network but for rounding.
    """
    chain = copy.deepcopy(nn.Sequential(OrderedDict(list(network.layers.named_children())[:first]))).eval()
    _fold(chain)
    return chain.requires_grad_(False)


def _fold(chain: nn.Module) -> None:
    named = [(name, module) for name, module in chain.named_children() if name != "shortcut"]
    for (name, conv), (norm_name, norm) in itertools.pairwise(named):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            chain.add_module(name, fuse_conv_bn_eval(conv, norm))
            chain.add_module(norm_name, nn.Identity())
    before: nn.Module | None = None
    for module in chain.children():
        if isinstance(module, ChainModule):  # a residual is one, and so is its shortcut
            _fold(module)
        if isinstance(module, nn.ReLU | nn.ReLU6):
            module.inplace = isinstance(before, nn.Conv2d)  # whose output nobody else needs
        before = before if isinstance(module, nn.Identity) else module
