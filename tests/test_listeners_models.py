"""CLAP and audio language models: the real loading code, on tiny random models in a folder; weights out of reach."""

from pathlib import Path

import numpy as np
import pytest
import torch
from listener_models import write_audio_lm, write_clap

from configs.errors import UserError
from configs.listeners import ListenerSettings
from data_prep.listeners.audio_lm import AudioLanguageModel
from data_prep.listeners.clap import WORDS, Clap, read_words
from data_prep.listeners.embedding import embed
from data_prep.listeners.listener import Known
from data_prep.listeners.model_files import model_folder, weights_identity
from data_prep.listeners.registry import LISTENERS, load_listener, parse_wanted

RATE_HZ = 16_000
WRITERS = ("qwen2-audio", "qwen2.5-omni", "music-flamingo")


def noise(sec: float, seed: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(sec * RATE_HZ))).astype(np.float32)


@pytest.fixture(scope="module")
def clap_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clap(tmp_path_factory.mktemp("clap"))


@pytest.fixture(scope="module", params=WRITERS)
def writer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return request.param, write_audio_lm(tmp_path_factory.mktemp(request.param), request.param)


def test_clap_embeds_words_and_audio_in_one_space(clap_folder: Path) -> None:
    clap = Clap(str(clap_folder))
    clips, texts = [noise(2, 0), noise(25, 1)], ["slow piano", "fast rock"]
    points, words = clap.embed(clips), clap.embed_text(texts)
    assert points.shape == words.shape == (2, clap.width)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(clap.score(clips, texts), np.diag(points @ words.T), rtol=1e-5)
    np.testing.assert_array_equal(points, clap.embed(clips), "no window at a random place")
    np.testing.assert_allclose(embed(clips, RATE_HZ, f"clap:{clap_folder}"), points, rtol=1e-5)


def test_claps_window_is_the_processors_own(clap_folder: Path) -> None:
    """Exactly ten seconds: one window, as transformers itself would embed it."""
    clap = Clap(str(clap_folder))
    clip = noise(10, 2)
    inputs = clap.processor(audio=[clip], sampling_rate=RATE_HZ, truncation="rand_trunc", return_tensors="pt")
    with torch.inference_mode():
        theirs = clap.model.get_audio_features(**inputs).pooler_output
    torch.testing.assert_close(torch.from_numpy(clap.embed([clip])), theirs, rtol=1e-5, atol=1e-6)


def test_clap_chooses_within_a_kind(clap_folder: Path) -> None:
    clap = Clap(str(clap_folder), {"a": ("slow", "fast"), "b": ("piano", "guitar", "drums")})
    heard = clap.listen([noise(2, 0)], [Known()])[0]
    assert sum(heard.scores[word] for word in ("slow", "fast")) == pytest.approx(1, abs=1e-4)
    assert sum(heard.scores[word] for word in ("piano", "guitar", "drums")) == pytest.approx(1, abs=1e-4)
    assert set(heard.words) == {word for word, score in heard.scores.items() if score >= 0.5}
    assert clap.fingerprint != Clap(str(clap_folder)).fingerprint, "another list gives other answers"


def test_a_list_of_words_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("# genre\nfado\nsamba\n\n# lead\ngaita\naccordion\nfado\n", "utf-8")
    assert read_words(path) == {"genre": ("fado", "samba"), "lead": ("gaita", "accordion", "fado")}
    settings = ListenerSettings(clap_words=path)
    assert settings.clap_words == path
    for bad in (b"", b"# genre\nfado\n", b"\xff\xfe\x00", b"x\n" * 40_000):
        path.write_bytes(bad)
        with pytest.raises(UserError) as caught:
            read_words(path)
        assert str(path) in caught.value.where


def test_a_writer_answers_each_clip_alone_or_together(writer: tuple[str, Path]) -> None:
    name, folder = writer
    model = AudioLanguageModel(name, str(folder), ListenerSettings(max_new_tokens=8))
    clips = [noise(2, 0), noise(12, 1), noise(5, 2)]
    together = model.listen(clips, [Known()] * 3)
    alone = [model.listen([clip], [Known()])[0] for clip in clips]
    assert together == alone and all(heard.text for heard in together)
    assert not any("<" in heard.text for heard in together), "no special token in what it says"


def test_a_writer_in_four_bits_on_a_processor(writer: tuple[str, Path]) -> None:
    """bitsandbytes works on a CPU too: the same loading code as on a GPU."""
    bitsandbytes = pytest.importorskip("bitsandbytes")
    name, folder = writer
    model = AudioLanguageModel(name, str(folder), ListenerSettings(max_new_tokens=8, bits=4))
    held = [module for module in model.model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
    assert held and all(module.weight.quant_state.quant_type == "nf4" for module in held)
    clips = [noise(2, 0), noise(5, 2)]
    heard = model.listen(clips, [Known()] * 2)
    assert all(one.text for one in heard) and heard == model.listen(clips, [Known()] * 2)
    assert model.fingerprint != AudioLanguageModel(name, str(folder), ListenerSettings(max_new_tokens=8)).fingerprint


def test_a_writers_answers_are_named_by_prompt_and_weights(writer: tuple[str, Path], tmp_path: Path) -> None:
    name, folder = writer
    settings = ListenerSettings(max_new_tokens=8)
    first = AudioLanguageModel(name, str(folder), settings)
    asked = AudioLanguageModel(name, str(folder), ListenerSettings(max_new_tokens=8, prompt="What is this?"))
    other = AudioLanguageModel(name, str(write_audio_lm(tmp_path / "other", name, seed=1)), settings)
    assert len({first.fingerprint, asked.fingerprint, other.fingerprint}) == 3
    assert "What is this?" in asked._prompt()


def test_every_listener_loads_from_a_folder_by_its_name(clap_folder: Path, writer: tuple[str, Path]) -> None:
    name, folder = writer
    settings = ListenerSettings(use=["musicnn", f"clap:{clap_folder}", f"{name}:{folder}"])
    found = [load_listener(wanted, settings) for wanted in parse_wanted(settings.use)]
    assert [listener.name for listener in found] == ["musicnn", "clap", name]


@pytest.mark.parametrize("name", [name for name in LISTENERS if name != "musicnn"])
def test_weights_out_of_reach_are_told_in_a_sentence(name: str) -> None:
    with pytest.raises(UserError, match="not on this machine and the hub cannot be reached") as caught:
        load_listener(parse_wanted([name])[0], ListenerSettings())
    assert "folder" in caught.value.fix and "musicnn" in caught.value.fix


def test_an_unknown_listener_is_named_with_the_nearest() -> None:
    with pytest.raises(UserError, match="no listener 'qwen-audio'") as caught:
        parse_wanted(["qwen-audio"])
    assert "did you mean qwen2-audio?" in caught.value.fix
    assert len(parse_wanted(["musicnn", "musicnn"])) == 1


def test_folders_that_cannot_be_used(clap_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="its model_type is 'clap', not qwen2_audio"):
        model_folder(str(clap_folder), "qwen2-audio", ("qwen2_audio",))
    (tmp_path / "config.json").write_text('{"model_type": "clap"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(UserError, match="pickled weights only"):
        model_folder(str(tmp_path), "clap", ("clap",))
    (tmp_path / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(UserError, match="LFS"):
        model_folder(str(tmp_path), "clap", ("clap",))


def test_a_changed_weight_changes_the_identity(clap_folder: Path, tmp_path: Path) -> None:
    other = write_clap(tmp_path / "other", seed=1)
    assert weights_identity(other) != weights_identity(clap_folder)
    assert weights_identity(write_clap(tmp_path / "same")) == weights_identity(clap_folder)


def test_the_list_of_words_has_no_word_twice() -> None:
    words = [word for kind in WORDS.values() for word in kind]
    assert len(words) == len(set(words)), "scores are kept by word"
