"""Run where `magenta-rt` and ai-edge-litert are installed: a tiny style model in real tflite files, and both readers.

    python mrt2_style_official.py FOLDER

FOLDER holds spm.model; the tflite files are written there. Compares what the official MusicCoCa makes of words and
sound with what ours makes; prints `equal`, or fails.
"""

import sys
from pathlib import Path

import flatbuffers  # pyright: ignore[reportMissingImports]
import numpy as np
from ai_edge_litert import schema_py_generated as schema  # pyright: ignore[reportMissingImports]
from magenta_rt import audio  # pyright: ignore[reportMissingImports]
from magenta_rt.musiccoca import MusicCoCa as Official  # pyright: ignore[reportMissingImports]

from data_prep.musiccoca import MusicCoCa

WIDTH, SAMPLES, FEATURES = 768, 160_000, 4
FLOAT, INT = schema.TensorType.FLOAT32, schema.TensorType.INT32


class Graph:
    """A tflite model of a few operators, built by hand."""

    def __init__(self) -> None:
        self.model, self.graph = schema.ModelT(), schema.SubGraphT()
        self.model.version = 3
        self.model.buffers = [schema.BufferT()]
        self.model.operatorCodes = []
        self.model.subgraphs = [self.graph]
        self.graph.tensors, self.graph.operators = [], []

    def tensor(self, shape, kind=FLOAT, values=None) -> int:
        made, buffer = schema.TensorT(), schema.BufferT()
        made.shape, made.type, made.name = list(shape), kind, f"t{len(self.graph.tensors)}"
        if values is not None:
            buffer.data = np.frombuffer(np.asarray(values, np.float32).tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        made.buffer = len(self.model.buffers) - 1
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def apply(self, name, inputs, shape, kind=FLOAT, options=None, options_type=0) -> int:
        code, operator, out = schema.OperatorCodeT(), schema.OperatorT(), self.tensor(shape, kind)
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
        self.model.operatorCodes.append(code)
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.inputs, operator.outputs = list(inputs), [out]
        operator.builtinOptions, operator.builtinOptionsType = options, options_type
        self.graph.operators.append(operator)
        return out

    def dense(self, given: int, weight, bias) -> int:
        out, width = weight.shape
        held = [self.tensor((out, width), values=weight), self.tensor((out,), values=bias)]
        kind = schema.BuiltinOptions.FullyConnectedOptions
        return self.apply("FULLY_CONNECTED", [given, *held], (1, out), FLOAT, schema.FullyConnectedOptionsT(), kind)

    def write(self, path: Path, inputs, outputs) -> None:
        self.graph.inputs, self.graph.outputs = list(inputs), list(outputs)
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), file_identifier=b"TFL3")
        path.write_bytes(bytes(builder.Output()))


def write_model(folder: Path) -> None:
    draw = np.random.default_rng(0)

    def dense(graph, given, width, out, scale=1.0, bias=0.0):
        weight = draw.standard_normal((out, width)) * scale / np.sqrt(width)
        return graph.dense(given, weight, draw.standard_normal(out) * 0.1 + bias)

    text = Graph()
    ids, paddings = text.tensor((1, 128), INT), text.tensor((1, 128))
    add = schema.BuiltinOptions.AddOptions
    both = text.apply(
        "ADD", [text.apply("CAST", [ids], (1, 128)), paddings], (1, 128), FLOAT, schema.AddOptionsT(), add
    )
    text.write(folder / "text_encoder.tflite", [ids, paddings], [dense(text, both, 128, WIDTH)])
    sound = Graph()
    given = sound.tensor((1, SAMPLES))
    sound.write(folder / "audio_preprocessor.tflite", [given], [dense(sound, given, SAMPLES, FEATURES, 30.0)])
    music = Graph()
    given = music.tensor((1, FEATURES))
    music.write(folder / "music_encoder.tflite", [given], [dense(music, given, FEATURES, WIDTH)])
    quantizer = Graph()
    given = quantizer.tensor((1, WIDTH))
    numbers = dense(quantizer, given, WIDTH, 12, 3.0, 500.0)
    quantizer.write(
        folder / "pretrained_vector_quantizer.tflite", [given], [quantizer.apply("CAST", [numbers], (1, 12), INT)]
    )
    mapper = Graph()
    given, noise = mapper.tensor((1, WIDTH)), mapper.tensor((1, WIDTH))
    moved = mapper.apply("ADD", [given, noise], (1, WIDTH), FLOAT, schema.AddOptionsT(), add)
    mapper.write(folder / "mapper.tflite", [given, noise], [moved])


def main(folder: Path) -> None:
    write_model(folder)
    ours, theirs = MusicCoCa.load(folder), Official(folder)
    texts = ["Slow Piano", "fast rock with drums, loud", "word " * 200]
    for mapped in (False, True):
        expected = theirs.embed_batch_text(texts, use_mapper=mapped, seed=3)
        found = ours.embed_texts(texts, mapped=mapped, seed=3)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(ours.tokens(found), theirs.tokenize(expected))
    assert [ours.is_too_long(text) for text in texts] == [False, False, True]
    recording = np.random.default_rng(1).standard_normal((2, 2 * SAMPLES)).astype(np.float32) * 0.1
    expected = theirs.embed_batch_audio([audio.Waveform(recording.T, 16_000)], pool_across_time=False)[0]
    found = ours.embed_sound(recording, 16_000)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(ours.tokens(found), theirs.tokenize(expected))
    assert len(np.unique(ours.tokens(found))) > 6
    print("equal")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
