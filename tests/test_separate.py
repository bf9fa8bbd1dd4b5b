import json
import random
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from demucs.apply import apply_model
from demucs.htdemucs import HTDemucs
from safetensors.torch import save_file

from configs.errors import UserError
from data_prep.decode import stream
from data_prep.overlap_add import WindowPlan, overlap_add
from data_prep.separate import _loudness, _shifts, check_selections, load_separator, parse_selection, separate
from data_prep.separator import Separator

SOURCES = ["drums", "bass", "other", "vocals"]
RATE_HZ = 8000
KWARGS = {
    "sources": SOURCES, "audio_channels": 2, "samplerate": RATE_HZ, "segment": Fraction(1), "channels": 4, "growth": 2,
    "nfft": 512, "depth": 3, "t_layers": 1, "t_heads": 2, "bottom_channels": 8, "dconv_depth": 1, "dconv_comp": 2,
}  # fmt: skip


def small_model(seed: int) -> HTDemucs:
    torch.manual_seed(seed)
    return HTDemucs(**KWARGS).eval()


def write_safetensors(model: HTDemucs, path: Path, **changes: str) -> None:
    kwargs = {**KWARGS, "segment": {"_type": "fraction", "numerator": 1, "denominator": 1}}
    metadata = {"klass": "demucs.htdemucs.HTDemucs", "args": "[]", "kwargs": json.dumps(kwargs)} | changes
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path, metadata=metadata)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bag of two random models whose outputs count differently for each stem."""
    place = tmp_path_factory.mktemp("demucs")
    for index in range(2):
        write_safetensors(small_model(index), place / f"m{index}.safetensors")
    weights = [[1.0, 0.25, 1.0, 0.0], [1.0, 0.75, 0.0, 1.0]]
    (place / "tiny.yaml").write_text(yaml.safe_dump({"models": ["m0", "m1"], "weights": weights}))
    return place


@pytest.fixture(scope="module")
def separator(folder: Path) -> Separator:
    return load_separator(str(folder))


@pytest.fixture
def song(tmp_path: Path) -> Path:
    """3.3 s of stereo noise and tone with an offset, at the model's rate, so that decoding changes nothing."""
    rng = np.random.default_rng(0)
    n = int(3.3 * RATE_HZ)
    tone = np.sin(np.arange(n) * 0.2)[:, None] * [0.3, 0.1]
    path = tmp_path / "song.wav"
    soundfile.write(path, (rng.normal(0, 0.1, (n, 2)) + tone + 0.01).astype(np.float32), RATE_HZ, subtype="FLOAT")
    return path


def read(path: Path) -> torch.Tensor:
    data, rate = soundfile.read(path, dtype="float32", always_2d=True)
    assert rate == RATE_HZ
    return torch.from_numpy(data.T.copy())


def reference(folder: Path, song: Path, shifts: int = 0, overlap: float = 0.25) -> dict[str, torch.Tensor]:
    """Demucs' own way: the whole track in memory, its own apply_model on its own bag."""
    from demucs.apply import BagOfModels

    bag = BagOfModels([small_model(0), small_model(1)], yaml.safe_load((folder / "tiny.yaml").read_text())["weights"])
    mix = read(song)
    mono = mix.mean(0)
    mean, std = mono.mean(), mono.std() + 1e-8
    out = apply_model(bag, ((mix - mean) / std)[None], shifts=shifts, overlap=overlap)[0]
    return dict(zip(SOURCES, out * std + mean, strict=True))


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.6])
def test_stems_equal_demucs_own(folder: Path, separator: Separator, song: Path, tmp_path: Path, overlap: float) -> None:
    expected = reference(folder, song, overlap=overlap)
    selections = [parse_selection(s) for s in ("vocals", "drums+bass", "instrumental", "mix")]
    places = separate(song, selections, separator, tmp_path / "out", overlap=overlap)
    torch.testing.assert_close(read(places["vocals"]), expected["vocals"], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(read(places["bass+drums"]), expected["drums"] + expected["bass"], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(read(places["instrumental"]) + read(places["vocals"]), read(song), atol=1e-5, rtol=1e-4)
    assert places["mix"] == song
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["bass+drums.wav", "instrumental.wav", "vocals.wav"]


def test_shifts_equal_demucs_own(
    separator: Separator, song: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Demucs' shift of o samples is our lead of half a second less o."""
    mix = read(song)
    mono = mix.mean(0)
    mean, std = mono.mean(), mono.std() + 1e-8
    draws = iter(RATE_HZ // 2 - lead for lead in _shifts(separator, 2, 5))
    monkeypatch.setattr(random, "randint", lambda low, high: next(draws))
    out = apply_model(small_model(0), ((mix - mean) / std)[None], shifts=2)[0]
    places = separate(song, [parse_selection("other")], separator, tmp_path, shifts=2, seed=5)
    torch.testing.assert_close(read(places["other"]), (out * std + mean)[2], atol=2e-5, rtol=1e-4)


def test_the_track_is_normalised_as_demucs_does(separator: Separator, song: Path) -> None:
    """Over the whole track at once, though read in blocks. The model's own normalisation would hide an error here."""
    mono = read(song).double().mean(0)
    found = _loudness(stream(song))
    assert found.samples == len(mono)
    assert found.mean == pytest.approx(mono.mean().item(), rel=1e-5)
    assert found.std == pytest.approx(mono.std().item(), rel=1e-5)


def test_models_that_say_nothing_of_a_stem_are_not_run(separator: Separator, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise AssertionError("was run")

    windows = torch.randn(1, 2, RATE_HZ)
    expected = separator.run(windows, frozenset(SOURCES))[:, 3]
    monkeypatch.setattr(separator.models[0], "forward", fail)
    torch.testing.assert_close(separator.run(windows, frozenset({"vocals"}))[:, 3], expected)
    with pytest.raises(AssertionError, match="was run"):
        separator.run(windows, frozenset({"other"}))


def test_mono_and_other_rates_come_out_stereo_and_whole(separator: Separator, tmp_path: Path) -> None:
    path = tmp_path / "mono.wav"
    soundfile.write(path, np.random.default_rng(1).normal(0, 0.1, 22050), 11025)
    seen: list[float] = []
    places = separate(path, [parse_selection("bass")], separator, tmp_path / "out", on_progress=seen.append)
    assert read(places["bass"]).shape == (2, 16000)
    assert seen == sorted(seen) and seen[-1] == pytest.approx(1.0)


def test_a_failure_leaves_no_file(separator: Separator, song: Path, tmp_path: Path) -> None:
    def stop(share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        separate(song, [parse_selection("bass")], separator, tmp_path / "out", on_progress=stop)
    assert not list((tmp_path / "out").rglob("*"))


def test_overlap_add_holds_few_windows() -> None:
    """The identity comes back exactly, and no more input is read than the windows so far need."""
    plan, read_to = WindowPlan(samples=100_000, window=1000, padded=1200, overlap=0.25), 0

    def blocks():
        nonlocal read_to
        for at in range(0, plan.samples, 160):
            read_to = at + 160
            yield np.arange(at, min(at + 160, plan.samples), dtype=np.float32)[None] / 1000

    done = 0
    for piece in overlap_add(blocks(), plan, lambda w: w[:, None], batch=3):
        expected = torch.arange(done, done + piece.shape[-1]) / 1000
        torch.testing.assert_close(piece[0, 0], expected, atol=1e-5, rtol=1e-5)
        done += piece.shape[-1]
        assert read_to - done < 4 * plan.padded
    assert done == plan.samples


def test_fingerprint_is_the_weights(folder: Path, separator: Separator, tmp_path: Path) -> None:
    assert load_separator(str(folder / "tiny")).fingerprint == separator.fingerprint
    write_safetensors(small_model(7), tmp_path / "m0.safetensors")
    (tmp_path / "one.yaml").write_text("models: [m0]")
    assert load_separator(str(tmp_path)).fingerprint != separator.fingerprint


def test_demucs_own_format_loads_and_nothing_else_in_a_pickle(tmp_path: Path, song: Path) -> None:
    package = {"klass": HTDemucs, "args": (), "kwargs": KWARGS, "state": small_model(0).state_dict()}
    torch.save(package, tmp_path / "m.th")
    (tmp_path / "m.yaml").write_text("models: [m]")
    assert load_separator(str(tmp_path)).sources == tuple(SOURCES)
    torch.save({**package, "klass": Path}, tmp_path / "m.th")
    with pytest.raises(UserError, match="could run code"):
        load_separator(str(tmp_path))


def test_a_safetensors_file_may_only_name_demucs_classes(tmp_path: Path) -> None:
    write_safetensors(small_model(0), tmp_path / "m.safetensors", klass="os.system", args='["true"]', kwargs="{}")
    (tmp_path / "m.yaml").write_text("models: [m]")
    with pytest.raises(UserError, match="names no Demucs model"):
        load_separator(str(tmp_path))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "it holds: none"),
        ({"a.yaml": "models: [x]", "b.yaml": "models: [x]"}, "it holds: a, b"),
        ({"a.yaml": "models: [x]"}, "weights x are missing"),
        ({"a.yaml": "models: [x]", "x.th": "rubbish"}, "not usable as Demucs weights"),
        ({"a.yaml": "models: [x]", "x.safetensors": "rubbish"}, "not usable as Demucs weights"),
        ({"a.yaml": "nothing: here"}, "not a usable Demucs bag"),
        ({"a.yaml": "models: ["}, "not a usable Demucs bag"),
    ],
)
def test_unusable_folders_are_explained(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        load_separator(str(tmp_path))


def test_unknown_model_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean htdemucs_ft"):
        load_separator("htdemuc_ft")


def test_a_model_that_cannot_be_fetched_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(name: str) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("demucs.pretrained.get_model", offline)
    with pytest.raises(UserError, match="no route to host") as raised:
        load_separator("htdemucs")
    assert "folder" in raised.value.fix


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("mix", ("mix",)),
        (" Drums + bass", ("bass", "drums")),
        ("instrumental", ("instrumental",)),
        ("piano", ("piano",)),
    ],
)
def test_selections(text: str, parts: tuple[str, ...]) -> None:
    assert parse_selection(text).parts == parts
    assert parse_selection(text).name == "+".join(parts)


@pytest.mark.parametrize("text", ["", "drums+", "drums+drums", "mix+drums", "instrumental+vocals"])
def test_selections_that_mean_nothing(text: str) -> None:
    with pytest.raises(UserError, match="stems"):
        parse_selection(text)


def test_stems_the_model_lacks() -> None:
    check_selections([parse_selection("mix"), parse_selection("instrumental")], SOURCES)
    with pytest.raises(UserError, match="did you mean vocals"):
        check_selections([parse_selection("vocal")], SOURCES)
    with pytest.raises(UserError, match="htdemucs_6s"):
        check_selections([parse_selection("piano")], SOURCES)


def test_stem_files_keep_what_exceeds_full_scale(tmp_path: Path) -> None:
    from data_prep.write_audio import FloatWavWriter

    audio = np.array([[1.5, -2.0, 0.1]], np.float32)
    with FloatWavWriter(tmp_path / "a.wav", RATE_HZ, 1, 3) as file:
        file.write(audio)
    np.testing.assert_array_equal(next(stream(tmp_path / "a.wav")), audio)
