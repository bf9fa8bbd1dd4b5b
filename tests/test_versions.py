"""Stems in prep: each version is separated once, kept, found again; made anew when damaged or asked for otherwise."""

import numpy as np
import pytest
import torch
import yaml
from test_separate import RATE_HZ, small_model, write_safetensors

from configs.errors import UserError
from configs.prep import StemSettings
from data_prep import versions
from data_prep.cache import Cache
from data_prep.measure import measure
from data_prep.scan import SongFile
from data_prep.separate import parse_selection
from data_prep.tracks import Track
from data_prep.versions import make_versions
from data_prep.write_audio import write_audio


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> StemSettings:
    folder = tmp_path_factory.mktemp("demucs")
    write_safetensors(small_model(0), folder / "m0.safetensors")
    (folder / "tiny.yaml").write_text(yaml.safe_dump({"models": ["m0"]}))
    return StemSettings(model=str(folder))


@pytest.fixture
def tracks(tmp_path) -> list[Track]:
    made = []
    for name in ("a", "b"):
        path = tmp_path / "songs" / f"{name}.wav"
        noise = np.random.default_rng(ord(name)).normal(0, 0.1, (2, 2 * RATE_HZ)).astype(np.float32)
        write_audio(path, noise, RATE_HZ)
        made.append(Track(SongFile(path, path.name), f"sha of {name}", measure(path)))
    return made


@pytest.fixture
def separated(monkeypatch) -> list[tuple[str, list[str]]]:
    """Which stems of which track were really separated."""
    calls: list[tuple[str, list[str]]] = []
    real = versions.separate

    def counted(path, selections, *args, **kwargs):
        calls.append((path.name, [selection.name for selection in selections]))
        return real(path, selections, *args, **kwargs)

    monkeypatch.setattr(versions, "separate", counted)
    return calls


def made(tracks, use, settings, cache):
    selections = [parse_selection(text) for text in use]
    return make_versions(tracks, selections, settings, cache, device=torch.device("cpu"), seed=0)


def test_the_mix_needs_no_separator(tracks, tmp_path):
    result = made(tracks, ["mix"], StemSettings(model="there is none"), Cache(tmp_path / "cache"))
    assert result.separator is None and [v.path for v in result.versions] == [t.song.path for t in tracks]
    assert [v.key for v in result.versions] == [t.source_sha256 for t in tracks]


def test_every_version_of_every_track_in_order(tracks, settings, separated, tmp_path):
    cache = Cache(tmp_path / "cache")
    result = made(tracks, ["vocals", "mix", "drums+bass"], settings, cache)
    names = [(v.track.song.relative, v.stems) for v in result.versions]
    assert names == [(t, s) for t in ("a.wav", "b.wav") for s in ("vocals", "mix", "bass+drums")]
    assert separated == [("a.wav", ["vocals", "bass+drums"]), ("b.wav", ["vocals", "bass+drums"])]
    assert len({v.key for v in result.versions}) == 6
    for version in result.versions:
        assert version.path.is_file() and version.scan == measure(version.path)
    assert not list(cache.folder.rglob("*.part"))


def test_only_what_is_not_there_is_separated(tracks, settings, separated, tmp_path):
    cache = Cache(tmp_path / "cache")
    first = made(tracks, ["vocals"], settings, cache)
    separated.clear()
    assert made(tracks, ["vocals"], settings, cache).versions == first.versions and not separated
    made(tracks[:1], ["vocals", "drums"], settings, cache)
    assert separated == [("a.wav", ["drums"])]
    separated.clear()
    again = made(tracks[:1], ["vocals"], StemSettings(model=settings.model, overlap=0.1), cache)
    assert separated == [("a.wav", ["vocals"])] and again.versions[0].key != first.versions[0].key


def test_a_damaged_stem_is_made_again(tracks, settings, separated, tmp_path):
    cache = Cache(tmp_path / "cache")
    first = made(tracks, ["vocals"], settings, cache)
    content = first.versions[1].path.read_bytes()
    first.versions[0].path.unlink()
    first.versions[1].path.write_bytes(content[:-100])
    separated.clear()
    assert made(tracks, ["vocals"], settings, cache) == first and len(separated) == 2
    made_again = first.versions[1].path.read_bytes()
    assert len(made_again) == len(content)
    assert made_again[1000:] == content[1000:], "only the header, with its time of writing, may differ"


def test_a_song_that_went_away_is_told_in_plain_words(tracks, settings, tmp_path):
    tracks[0].song.path.unlink()
    with pytest.raises(UserError, match=r"(?s)went away.*a\.wav: cannot be read: No such file"):
        made(tracks, ["vocals"], settings, Cache(tmp_path / "cache"))


def test_a_stem_the_model_lacks_is_refused(tracks, settings, tmp_path):
    with pytest.raises(UserError, match="no stem piano"):
        made(tracks, ["piano"], settings, Cache(tmp_path / "cache"))
