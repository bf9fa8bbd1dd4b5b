"""Splits keep recordings together; tokens are views of the file; an incomplete dataset is refused on opening."""

import json
import shutil
from collections import Counter

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from configs.errors import UserError
from data_prep import prepared
from data_prep.clips import read_clips
from data_prep.decode import AudioError, stream
from data_prep.prepared import FORMAT, FORMAT_VERSION, PreparedDataset, text_state_name
from data_prep.segment import Segment
from data_prep.split import TRAIN, VALIDATION, split_tracks
from data_prep.tokens import TokenReader, write_tokens
from data_prep.write_audio import write_audio

IDS = ["b", "a", "ü-ß"]
CAPTIONS = ["calm piano", 'rock, "loud"\n♫']


@pytest.fixture
def folder(tmp_path):
    """A dataset as prep writes it, made by hand."""
    rng = np.random.default_rng(0)
    codes = {i: rng.integers(0, 64, (4, t), dtype=np.int16) for i, t in zip(IDS, (250, 300, 251), strict=True)}
    write_tokens(tmp_path / "tokens", IDS, [codes[i] for i in IDS], "0123456789abcdef")
    rows = [
        {"id": i, "source": f"{i}.wav", "source_sha256": i * 3, "start_sec": 0.0, "stems": "mix", "something_newer": 1}
        | {"duration_sec": codes[i].shape[1] / 50, "n_frames": codes[i].shape[1]}
        | {"split": TRAIN if i != "a" else VALIDATION, "captions": CAPTIONS[: 1 + (i == "b")]}
        for i in IDS
    ]
    (tmp_path / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    info = {"format": FORMAT, "format_version": FORMAT_VERSION, "text_encoder": {"fingerprint": "f"}}
    (tmp_path / "prep.yaml").write_text(yaml.safe_dump(info | {"codec": {"n_codebooks": 4}}))
    (tmp_path / "text_states").mkdir()
    for length, caption in enumerate(CAPTIONS, 3):
        states = np.full((length, 12), length, dtype=np.float32)
        save_file({"states": states}, tmp_path / "text_states" / f"{text_state_name(caption, 'f')}.safetensors")
    return tmp_path, codes


def test_everything_comes_back(folder):
    path, codes = folder
    dataset = PreparedDataset(path)
    assert [row.id for row in dataset.clips()] == IDS
    assert [row.id for row in dataset.clips("train")] == ["b", "ü-ß"] and dataset.clips("validation")[0].id == "a"
    for clip_id in IDS:
        np.testing.assert_array_equal(dataset.codes(clip_id), codes[clip_id])
    assert dataset.text_state(CAPTIONS[1]).shape == (4, 12) and dataset.text_state(CAPTIONS[0]).shape == (3, 12)


def test_codes_are_views_and_cannot_be_written(folder):
    dataset = PreparedDataset(folder[0])
    first, again = dataset.codes("a"), dataset.codes("a")
    assert np.shares_memory(first, again) and not first.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        dataset.text_state(CAPTIONS[0])[0, 0] = 1


def test_plain_datasets_reads_the_tokens(folder):
    from datasets import load_from_disk

    path, codes = folder
    row = load_from_disk(str(path / "tokens"))[1]
    assert row["id"] == "a"
    np.testing.assert_array_equal(np.array(row["codes"]), codes["a"])


def test_many_chunks_read_the_same(tmp_path):
    ids = [f"{n:05}" for n in range(2500)]
    codes = [np.full((8, 1 + n % 7), n % 2048, dtype=np.int16) for n in range(2500)]
    write_tokens(tmp_path / "t", ids, codes, "0" * 16)
    reader = TokenReader(tmp_path / "t")
    assert len(reader) == 2500
    for clip_id, expected in list(zip(ids, codes, strict=True))[::97]:
        np.testing.assert_array_equal(reader[clip_id], expected)


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda p: (p / "prep.yaml").unlink(), "no prepared dataset"),
        (lambda p: ((p / "prep.yaml").unlink(), (p / ".cache").mkdir()), "not finished"),
        (lambda p: (p / "prep.yaml").write_text("{"), "damaged"),
        (lambda p: (p / "prep.yaml").write_text(f"format: {FORMAT}\nformat_version: 99"), "format"),
        (lambda p: (p / "clips.jsonl").write_text('{"id": 1}\n'), "damaged"),
        (lambda p: (p / "clips.jsonl").write_bytes(b'{"id"'), "damaged"),
        (lambda p: next((p / "tokens").glob("*.arrow")).unlink(), "damaged"),
        (lambda p: next((p / "text_states").iterdir()).unlink(), "no text states"),
        (lambda p: next((p / "text_states").iterdir()).write_bytes(b"{"), "damaged"),
        (lambda p: _say_conditions(p, {"beat": {}}), "damaged"),
        (lambda p: _say_conditions(p, ["beat"]), "damaged"),
        (lambda p: _say_conditions(p, {"../../tokens": {"clips": 3}}), "not all names"),
        (lambda p: _say_conditions(p, {"/tmp": {"clips": 3}}), "not all names"),
        (lambda p: _change_row(p, n_frames=17), "tokens are"),
        (lambda p: _change_row(p, id="zzz"), "has no tokens"),
    ],
)
def test_an_incomplete_dataset_is_refused(folder, break_it, says):
    break_it(folder[0])
    with pytest.raises(UserError, match=says):
        PreparedDataset(folder[0])


def _say_conditions(folder, conditions):
    info = yaml.safe_load((folder / "prep.yaml").read_text())
    (folder / "prep.yaml").write_text(yaml.safe_dump(info | {"conditions": conditions}))


def test_a_dataset_that_is_replaced_stays_readable(folder):
    """What `prep` does when it is run again: nothing of the old dataset is left by its name."""
    path, codes = folder
    dataset = PreparedDataset(path)
    shutil.rmtree(path)
    for clip_id in IDS:
        np.testing.assert_array_equal(dataset.codes(clip_id), codes[clip_id])
    for length, caption in enumerate(CAPTIONS, 3):
        np.testing.assert_array_equal(dataset.text_state(caption), np.full((length, 12), length, dtype=np.float32))


def test_captions_beyond_those_mapped_are_read_by_name(folder, monkeypatch):
    monkeypatch.setattr(prepared, "_STATES_MAPPED", 1)
    dataset = PreparedDataset(folder[0])
    assert dataset.text_state(CAPTIONS[1]).shape == (4, 12)
    dataset = PreparedDataset(folder[0])
    shutil.rmtree(folder[0])
    assert dataset.text_state(CAPTIONS[0]).shape == (3, 12)
    with pytest.raises(UserError, match="incomplete or damaged"):
        dataset.text_state(CAPTIONS[1])


def _change_row(path, **values):
    lines = (path / "clips.jsonl").read_text().splitlines()
    lines[0] = json.dumps(json.loads(lines[0]) | values)
    (path / "clips.jsonl").write_text("\n".join(lines))


LENGTHS = st.dictionaries(st.text("0123456789abcdef", min_size=4, max_size=8), st.floats(5, 900), max_size=12)


@given(LENGTHS, st.floats(0.01, 0.5), st.integers(0, 5))
def test_there_is_always_something_on_both_sides(seconds, fraction, seed):
    splits = split_tracks(seconds, fraction, seed)
    assert splits == split_tracks(dict(reversed(seconds.items())), fraction, seed)
    assert set(splits) == set(seconds)
    if len(seconds) > 1:
        assert Counter(splits.values())[TRAIN] and Counter(splits.values())[VALIDATION]
    else:
        assert VALIDATION not in splits.values()


def test_the_share_is_met_and_the_seed_decides():
    seconds = {f"{n:x}": 100.0 + n for n in range(100)}
    chosen = [{k for k, s in split_tracks(seconds, 0.1, seed).items() if s == VALIDATION} for seed in (0, 1)]
    for held in chosen:
        assert abs(sum(seconds[k] for k in held) / sum(seconds.values()) - 0.1) < 0.01
    assert chosen[0] != chosen[1]
    assert set(split_tracks(seconds, 0.0, 0).values()) == {TRAIN}


def test_adding_a_song_moves_few_others():
    seconds = {f"{n:x}": 100.0 for n in range(60)}
    before, after = split_tracks(seconds, 0.2, 0), split_tracks(seconds | {"new": 100.0}, 0.2, 0)
    assert sum(before[k] != after[k] for k in seconds) <= 1


def test_clips_are_the_same_samples_as_the_whole_track(tmp_path):
    audio = np.random.default_rng(0).uniform(-0.9, 0.9, (2, 16_000 * 13)).astype(np.float32)
    write_audio(tmp_path / "a.wav", audio, 16_000)
    whole = np.concatenate(list(stream(tmp_path / "a.wav", sample_rate_hz=32_000, channels=2)), axis=1)
    places = [Segment(0.02, 0.5), Segment(0.52, 6.0), Segment(8.0, 0.02), Segment(11.5, 1.5)]
    clips = list(read_clips(tmp_path / "a.wav", places, sample_rate_hz=32_000, channels=2))
    for place, clip in zip(places, clips, strict=True):
        start = round(place.start_sec * 32_000)
        assert clip.shape[1] == round(place.duration_sec * 32_000)
        np.testing.assert_array_equal(clip, whole[:, start : start + clip.shape[1]])
    with pytest.raises(AudioError, match="ends earlier"):
        list(read_clips(tmp_path / "a.wav", [Segment(10.0, 9.0)], sample_rate_hz=32_000, channels=2))


def test_codes_of_a_large_codebook_are_wider_and_all_others_as_they_were(tmp_path):
    from data_prep.codec.spec import CodecSpec
    from data_prep.tokens import TokenReader, write_tokens

    assert CodecSpec(16_000, 320, 1, 1, 65_536).code_dtype == "int32"
    large = np.array([[0, 65_535, 40_000]], np.int32)
    write_tokens(tmp_path / "large", ["a", "b"], [large, large[:, :2]], "0" * 32)
    found = TokenReader(tmp_path / "large")
    assert found["a"].dtype == np.int32 and found["a"].tolist() == large.tolist() and found["b"].shape == (1, 2)
    small = np.arange(6, dtype=np.int16).reshape(2, 3)
    write_tokens(tmp_path / "small", ["a"], [small], "0" * 32)
    assert TokenReader(tmp_path / "small")["a"].dtype == np.int16
