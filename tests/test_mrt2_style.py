"""Style tokens: the official model's files, a stand-in with the same interface, blending, absent files."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mrt2_fixtures import official_environment

from configs.errors import UserError
from data_prep import musiccoca
from data_prep.musiccoca import MusicCoCa
from data_prep.style_tokens import StandInStyle, blend, stretches

RATE = 16_000
ROOT = Path(__file__).parent.parent


class Interpreter:
    """What ai-edge-litert's interpreter does, around a function of the inputs."""

    def __init__(self, kinds, compute):
        self.kinds, self.compute, self.given = kinds, compute, {}

    def get_input_details(self):
        return [{"index": i, "shape": np.array(shape), "dtype": dtype} for i, (shape, dtype) in enumerate(self.kinds)]

    def get_output_details(self):
        return [{"index": 99}]

    def set_tensor(self, index, value):
        shape, dtype = self.kinds[index]
        assert value.shape == tuple(shape) and value.dtype == dtype
        self.given[index] = value

    def invoke(self):
        self.out = self.compute(*(self.given[i] for i in range(len(self.kinds))))

    def get_tensor(self, index):
        return self.out


def interpreter(path: Path) -> Interpreter:
    """Small sums in the place of networks; the text's paddings come first, its ids second."""
    wide = np.arange(768, dtype=np.float32)[None]
    return {
        "text_encoder.tflite": Interpreter(
            [((1, 128), np.float32), ((1, 128), np.int32)],
            lambda paddings, ids: wide * ids.sum() + paddings.sum(),
        ),
        "audio_preprocessor.tflite": Interpreter([((1, 160_000), np.float32)], lambda x: x.mean(1, keepdims=True)),
        "music_encoder.tflite": Interpreter([((1, 1), np.float32)], lambda x: wide * x),
        "pretrained_vector_quantizer.tflite": Interpreter(
            [((1, 768), np.float32)], lambda x: np.round(x[:, :14]).astype(np.int32)
        ),
    }[path.name]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory) -> Path:
    """A folder with a small sentencepiece vocabulary."""
    import sentencepiece

    folder = tmp_path_factory.mktemp("style")
    lines = folder / "lines.txt"
    lines.write_text("slow piano\nfast rock with drums, loud\nword word word\nabcdefghijklmnopqrstuvwxyz\n" * 20)
    sentencepiece.SentencePieceTrainer.train(
        input=str(lines), model_prefix=str(folder / "spm"), vocab_size=45, minloglevel=2, hard_vocab_limit=False
    )
    return folder


def test_words_as_the_official_model_reads_them(vocabulary):
    import sentencepiece

    model = MusicCoCa(vocabulary, interpreter)
    ids = sentencepiece.SentencePieceProcessor(model_file=str(vocabulary / "spm.model")).EncodeAsIds("slow piano")
    found = model.embed_texts(["Slow Piano"])
    assert found.shape == (1, 768) and found.dtype == np.float32
    np.testing.assert_allclose(found[0], np.arange(768) * (1 + sum(ids)) + 128 - (1 + len(ids)))


def test_long_texts_are_cut_and_told(vocabulary):
    model = MusicCoCa(vocabulary, interpreter)
    assert model.is_too_long("word " * 200) and not model.is_too_long("slow piano")
    assert model.embed_texts(["word " * 200]).shape == (1, 768)


def test_sound_is_heard_by_the_ten_seconds(vocabulary):
    model = MusicCoCa(vocabulary, interpreter)
    audio = np.concatenate([np.full((2, 10 * RATE), 0.25), np.full((2, 10 * RATE), 0.5)], axis=1)
    found = model.embed_sound(audio, RATE)
    np.testing.assert_allclose(found[:, 1], [0.25, 0.5])
    assert model.tokens(found * 100).tolist() == [[25 * i for i in range(12)], [50 * i for i in range(12)]]


@pytest.mark.parametrize(("seconds", "count"), [(0, 0), (0.5, 1), (10, 1), (10.5, 2), (25, 3), (30, 3)])
def test_stretches_are_full_of_sound(seconds, count):
    audio = np.ones((2, int(seconds * 48_000)), np.float32)
    found = stretches(audio, 48_000)
    assert len(found) == count and all(len(stretch) == 10 * RATE for stretch in found)
    if seconds > 10:
        assert all(abs(stretch[100:-100] - 1).max() < 0.01 for stretch in found)


def test_what_is_no_token_is_refused(vocabulary):
    with pytest.raises(UserError, match="no tokens"):
        MusicCoCa(vocabulary, interpreter).tokens(np.full((1, 768), 2000, np.float32))


def test_mapping_needs_its_file(vocabulary):
    with pytest.raises(UserError, match=r"mapper\.tflite"):
        MusicCoCa(vocabulary, interpreter).embed_texts(["slow"], mapped=True)


def test_absent_files_are_named(vocabulary):
    with pytest.raises(UserError, match=r"text_encoder\.tflite.*missing"):
        MusicCoCa.load(vocabulary)


def test_the_absent_package_is_named(tmp_path, monkeypatch):
    for name in musiccoca.PARTS.values():
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(UserError, match="ai-edge-litert"):
        MusicCoCa.load(tmp_path)


def test_fingerprints_follow_the_files(tmp_path):
    for name in musiccoca.PARTS.values():
        (tmp_path / name).write_bytes(b"x" * 100)
    first = MusicCoCa(tmp_path).fingerprint
    assert MusicCoCa(tmp_path).fingerprint == first
    (tmp_path / "music_encoder.tflite").write_bytes(b"x" * 101)
    assert MusicCoCa(tmp_path).fingerprint != first


def test_the_stand_in_is_the_same_every_time():
    style = StandInStyle()
    one, other = style.embed_texts(["Slow piano", "fast rock"])
    assert np.array_equal(style.embed_texts(["slow piano"])[0], one)
    tokens = style.tokens(np.stack([one, other]))
    assert tokens.shape == (2, 12) and tokens.dtype == np.int16
    assert tokens.min() >= 0 and tokens.max() < 1024 and (tokens[0] != tokens[1]).all()
    near = style.tokens(np.stack([one, one + 0.001 * other]))
    assert (near[0] == near[1]).mean() > 0.5
    assert style.embed_sound(np.random.default_rng(0).standard_normal((2, 48_000)), 48_000).shape == (1, 768)
    assert style.embed_texts([]).shape == (0, 768)


def test_blends():
    two = StandInStyle().embed_texts(["slow piano", "fast rock"])
    np.testing.assert_array_equal(blend(two, [2.0, 0.0]), two[0])
    np.testing.assert_allclose(blend(two, [1.0, 3.0]), two[0] / 4 + two[1] * 3 / 4, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("weights", [[1.0], [0.0, 0.0], [1.0, -1.0], [float("nan"), 1.0]])
def test_weights_that_blend_nothing_are_refused(weights):
    with pytest.raises(UserError, match="cannot be blended"):
        blend(StandInStyle().embed_texts(["a", "b"]), weights)


@pytest.mark.network
def test_equal_to_the_official_reader_on_real_files(vocabulary, tmp_path_factory, tmp_path):
    """tflite files of a few operators through ai-edge-litert: the same places and tokens, words, sound and mapper."""
    python = official_environment(tmp_path_factory.mktemp("official") / "venv")
    (tmp_path / "spm.model").write_bytes((vocabulary / "spm.model").read_bytes())
    words = [python, Path(__file__).with_name("mrt2_style_official.py"), tmp_path]
    path = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().endswith("equal")
