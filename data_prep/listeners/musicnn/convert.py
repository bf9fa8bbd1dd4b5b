"""Make `weights/*.safetensors` again from the package musicnn 0.1.0. Nothing imports this but its test.

Needs TensorFlow, which Woodshed does not, so in an environment of its own:

    python -m venv /tmp/convert && /tmp/convert/bin/pip install "tensorflow>=2.16,<2.22" safetensors
    pip download musicnn==0.1.0 --no-deps && unzip musicnn-0.1.0-py3-none-any.whl
    /tmp/convert/bin/python -m data_prep.listeners.musicnn.convert musicnn data_prep/listeners/musicnn/weights

A checkpoint's variables are named by the order in which the layers were made (`conv2d`, `conv2d_1`, …), which is the
order of the network here. Kernels [height, width, in, out] become [out, in, height, width]. The four numbers of a batch
normalisation (epsilon 1e-3) become a scale and a shift in float64. All is stored in half precision.

`--reference FILE` also writes what the package's own graph, read from its checkpoint, says of a fixed input:
tests/test_listeners_musicnn.py holds the port against it.
"""

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

MODELS = {"mtt": "MTT_musicnn", "msd": "MSD_musicnn"}
EPSILON = 1e-3
_MOST_IN_HALF = 65504.0


def convert(checkpoint: Path) -> dict[str, np.ndarray]:
    """The tensors of `network.Musicnn` from a folder with a TensorFlow checkpoint."""
    values = _variables(checkpoint)
    tensors: dict[str, np.ndarray] = {}
    convolutions = [f"front.{i}" for i in range(5)] + [f"mid.{i}" for i in range(3)]
    norms = ["input_norm", *(f"{name}.norm" for name in convolutions), "pooled_norm", "hidden_norm"]
    for index, name in enumerate(convolutions):
        kernel = values.pop(f"{_numbered('conv2d', index)}/kernel")  # [height, width, in, out]
        flat = kernel.transpose(3, 2, 0, 1)
        # Over time and all channels at once: the channels were the image's width.
        tensors[f"{name}.conv.weight"] = flat if name.startswith("front") else flat[:, 0].transpose(0, 2, 1)
        tensors[f"{name}.conv.bias"] = values.pop(f"{_numbered('conv2d', index)}/bias")
    for index, name in enumerate(norms):
        tensors |= _scale_and_shift(name, _numbered("batch_normalization", index), values)
    for index, name in enumerate(("hidden", "logits")):
        tensors[f"{name}.weight"] = values.pop(f"{_numbered('dense', index)}/kernel").T
        tensors[f"{name}.bias"] = values.pop(f"{_numbered('dense', index)}/bias")
    if values:
        raise SystemExit(f"variables that have no place: {sorted(values)}")
    return {name: _half(name, tensor) for name, tensor in tensors.items()}


def _scale_and_shift(name: str, layer: str, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    gamma, beta, mean, variance = (
        values.pop(f"{layer}/{part}").astype(np.float64) for part in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    scale = gamma / np.sqrt(variance + EPSILON)
    return {f"{name}.scale": scale, f"{name}.shift": beta - mean * scale}


def _half(name: str, tensor: np.ndarray) -> np.ndarray:
    if np.abs(tensor).max() > _MOST_IN_HALF:
        raise SystemExit(f"{name} does not fit into half precision")
    return np.ascontiguousarray(tensor.astype(np.float16))


def _numbered(kind: str, index: int) -> str:
    return f"{kind}_{index}" if index else kind


def _variables(checkpoint: Path, *, whole_names: bool = False) -> dict[str, np.ndarray]:
    """Everything but the optimizer's own. The package's files have no prefix, which the reader needs."""
    import tensorflow as tf  # pyright: ignore[reportMissingImports]

    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".index", ".data-00000-of-00001"):
            shutil.copyfile(checkpoint / suffix, Path(folder) / f"m{suffix}")
        reader = tf.train.load_checkpoint(f"{folder}/m")
        names = [name for name in reader.get_variable_to_shape_map() if "Adam" not in name and "_power" not in name]
        return {name if whole_names else name.removeprefix("model/"): reader.get_tensor(name) for name in names}


def reference(package: Path, log_mel: np.ndarray) -> dict[str, np.ndarray]:
    """What each model's own graph, as its `.meta` file holds it, says of patches [B, 187, 96].

    The file holds the graph of the training: only what the logits need is taken, and the variables are fed.
    """
    import tensorflow as tf  # pyright: ignore[reportMissingImports]

    found: dict[str, np.ndarray] = {}
    for ours, theirs in MODELS.items():
        meta = tf.compat.v1.MetaGraphDef.FromString((package / theirs / ".meta").read_bytes())
        logits = next(n.name for n in meta.graph_def.node if n.name.endswith("dense_1/BiasAdd"))
        needed = tf.compat.v1.graph_util.extract_sub_graph(meta.graph_def, [logits])
        graph = tf.Graph()
        with graph.as_default(), tf.compat.v1.Session(graph=graph) as session:
            tf.import_graph_def(needed, name="")
            feed = _feed(needed, log_mel, _variables(package / theirs, whole_names=True))
            found[f"{ours}.logits"] = session.run(f"{logits}:0", feed)
    return found


def _feed(graph_def: Any, log_mel: np.ndarray, variables: dict[str, np.ndarray]) -> dict[str, Any]:
    """Values for the patches, for "is this training?", and for every variable."""
    feed: dict[str, Any] = {}
    for node in graph_def.node:
        if node.op == "Placeholder":
            boolean = node.attr["dtype"].type == 10  # DT_BOOL
            feed[f"{node.name}:0"] = False if boolean else log_mel
        elif node.op in ("VariableV2", "VarHandleOp"):
            feed[f"{node.name}:0"] = variables[node.name]
    return feed


def fixed_patches() -> np.ndarray:
    """Two patches that anyone can make again: noise whose level falls with frequency and swells over time."""
    draw = np.random.default_rng(0).random((2, 187, 96), dtype=np.float64)
    slope = np.linspace(2.5, 0.2, 96)[None, None, :]
    swell = 0.6 + 0.4 * np.sin(np.arange(187) / np.array([[4.0], [15.0]]))[:, :, None]
    return (draw * slope * swell).astype(np.float32)


def main() -> None:
    """Convert both models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, help="the unpacked package's folder `musicnn`")
    parser.add_argument("out", type=Path)
    parser.add_argument("--reference", type=Path, help="also write the original's outputs")
    args = parser.parse_args()
    for ours, theirs in MODELS.items():
        tensors = convert(args.package / theirs)
        metadata = {"source": f"musicnn 0.1.0, {theirs}", "license": "ISC"}
        save_file(tensors, args.out / f"{ours}.safetensors", metadata=metadata)
        print(f"{ours}: {sum(tensor.size for tensor in tensors.values()):,} numbers")
    if args.reference:
        save_file(reference(args.package, fixed_patches()), args.reference)


if __name__ == "__main__":
    main()
