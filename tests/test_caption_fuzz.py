"""Thousands of spoilt tables, sidecars and tags: no crash, and no word of an owner is lost without a line that says so.

A failing seed is in the message, and reproduces alone.
"""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.prep import CaptionSettings
from data_prep.captions import ClipFacts, compose
from data_prep.decode import AudioError, probe
from data_prep.features import Features
from data_prep.scan import ScanResult, scan
from data_prep.tags import facts_of, normalise

SONGS = ["a.wav", "b.wav", "sub/c, d.mp3", "e"]
WORD = re.compile(r"w\d\dx")
"""A caption of one word, so that it can be found wherever it ends up."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("songs")
    for song in SONGS:
        (folder / song).parent.mkdir(exist_ok=True)
        (folder / song).write_bytes(b"RIFF\0\0\0\0WAVE")
    return folder


def a_table(rng: random.Random) -> str:
    """A sound table of any common kind."""
    separator = rng.choice([",", ",", ";", "\t", "|"])
    quoted = rng.random() < 0.5
    header = [rng.choice(["file_name", "File", "path"]), rng.choice(["text", "Caption", "prompt"]), "genre"]
    lines = [header[: rng.choice([2, 3])]]
    words = iter(f"w{number:02}x" for number in range(100))
    for song in rng.choices(SONGS, k=rng.randint(1, 5)):
        caption = f"{separator} ".join(next(words) for _ in range(rng.choice([1, 1, 2, 3])))
        cells = [song, caption, "rock"][: len(lines[0])]
        lines.append([f'"{cell}"' if quoted or separator in song else cell for cell in cells])
    end = rng.choice(["\n", "\r\n"])
    return end.join(separator.join(line) for line in lines) + rng.choice(["", end])


def some_lines(rng: random.Random) -> str:
    """A sound metadata.jsonl."""
    words = iter(f"w{number:02}x" for number in range(100))
    rows = []
    for song in rng.choices(SONGS, k=rng.randint(1, 5)):
        captions = [next(words) for _ in range(rng.choice([1, 2, 3]))]
        row = {rng.choice(["file_name", "path"]): song, rng.choice(["text", "captions"]): captions, "genre": "rock"}
        rows.append(json.dumps(row))
    return "\n".join(rows)


def a_sidecar(rng: random.Random) -> str:
    """A sound sidecar, of JSON or of words."""
    if rng.random() < 0.4:
        return "w01x slow\n w02x"
    return json.dumps({"caption": "w01x", "captions": ["w02x", "w03x"], "bpm": 140, "key": "Am", "tags": ["w04x"]})


def spoilt(rng: random.Random, text: str) -> bytes:
    """One to four characters or pieces changed."""
    odd = [
        '"',
        '""',
        ",",
        ";",
        "\t",
        "\n",
        "\r",
        "\0",
        "\\",
        "\ufeff",
        "é",
        "[",
        "]",
        "{",
        "}",
        ":",
        "null",
        "7",
        " ",
        "'",
    ]
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(text) + 1)
        way = rng.random()
        if way < 0.4:
            text = text[:at] + rng.choice(odd) + text[at:]
        elif way < 0.7:
            text = text[:at] + text[at + rng.randint(1, 3) :]
        elif way < 0.85:
            other = rng.randrange(len(text) + 1)
            text = text[:at] + text[other : other + 12] + text[at:]
        else:
            text = text[:at]
    data = text.encode(rng.choice(["utf-8"] * 8 + ["utf-8-sig", "utf-16"]), "replace")
    if rng.random() < 0.05 and data:
        at = rng.randrange(len(data))
        data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
    return data


def decoded(data: bytes) -> str:
    return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8", "replace")


def words_of(data: bytes) -> set[str]:
    return set(WORD.findall(decoded(data)))


def is_said(word: str, data: bytes, places: set[str]) -> bool:
    """Whether a line is left out that the word stands in, or one shortly before that goes on in it, or all of it."""
    lines = re.split(r"\r\n|\n|\r", decoded(data))
    numbers = {number - back for number, line in enumerate(lines, 1) if word in line for back in range(4)}
    return any(":" not in place or int(place.rpartition(":")[2]) in numbers for place in places)


def lost(found: ScanResult, words: set[str]) -> set[str]:
    """Words that are in no caption and in nothing that is said about a song or a table's columns."""
    kept = " ".join(text for song in found.songs for text in song.own_captions)
    told = " ".join(reading.text for song in found.songs for reading in song.read)
    told += " ".join(column for use in found.metadata for column in use.columns)
    return words - set(WORD.findall(kept + " " + told))


FILES = [
    ("metadata.csv", a_table, 600), ("Metadata.TSV", a_table, 100), ("metadata.jsonl", some_lines, 300),
    ("captions.json", some_lines, 100), ("a.json", a_sidecar, 200), ("a.wav.txt", a_sidecar, 100),
    ("e.caption.txt", a_sidecar, 50),
]  # fmt: skip


def check(folder: Path, name: str, sound: Callable[[random.Random], str], seeds: range) -> None:
    """Spoil a file once per seed: whatever it said is in a caption, in a song's account, or beside a reason."""
    path = folder / name
    try:
        for seed in seeds:
            rng = random.Random(f"{name} {seed}")
            data = spoilt(rng, sound(rng))
            path.unlink(missing_ok=True)  # a new file each time: some file systems flush one that is written over
            path.write_bytes(data)
            found = scan(folder)
            assert [song.relative for song in found.songs] == sorted(SONGS), f"{name} {seed}"
            said = [rejection for rejection in found.rejected if rejection.where.startswith(name)]
            for word in lost(found, words_of(data)):
                assert is_said(word, data, {r.where for r in said}), f"{name} {seed}: {word} of {data!r} is lost"
            assert all(len(rejection.why) < 2000 and rejection.why for rejection in said), f"{name} {seed}"
    finally:
        path.unlink(missing_ok=True)


@pytest.mark.parametrize(("name", "sound", "cases"), FILES)
def test_nothing_is_swallowed(folder: Path, name: str, sound: Callable[[random.Random], str], cases: int) -> None:
    check(folder, name, sound, range(cases))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "sound", "cases"), FILES)
def test_nothing_is_swallowed_of_many(
    folder: Path, name: str, sound: Callable[[random.Random], str], cases: int
) -> None:
    check(folder, name, sound, range(10_000, 10_000 + 20 * cases))


def test_a_sound_file_loses_nothing_at_all(folder: Path) -> None:
    for seed in range(60):
        rng = random.Random(seed)
        for name, sound in (("metadata.csv", a_table), ("metadata.jsonl", some_lines)):
            text = sound(rng)
            (folder / name).write_text(text, "utf-8", newline="")
            found = scan(folder)
            kept = {word for song in found.songs for text in song.own_captions for word in WORD.findall(text)}
            (folder / name).unlink()
            assert kept == set(WORD.findall(text)) and not found.rejected, f"{name} {seed}: {text!r}"


def tagged(path: Path, codec: str) -> bytes:
    """A short file of noise with tags."""
    import av
    import numpy as np

    noise = np.random.default_rng(0).integers(-3000, 3000, (1, 8000), dtype=np.int16)
    with av.open(str(path), "w") as container:
        container.metadata.update({"genre": "R\u00f6ck", "TBPM": "140", "initialkey": "Am", "title": "T\u00eftle"})
        stream = container.add_stream(codec, rate=32_000)
        assert isinstance(stream, av.AudioStream)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(noise, format="s16", layout="mono")
        frame.sample_rate = 32_000
        frames = av.AudioResampler(stream.format.name, "mono", 32_000).resample(frame)
        for packet in [packet for part in [*frames, None] for packet in stream.encode(part)]:
            container.mux(packet)
    return path.read_bytes()


@pytest.mark.parametrize(("name", "codec"), [("x.flac", "flac"), ("x.mp3", "libmp3lame")])
def test_spoilt_bytes_of_tags(tmp_path: Path, name: str, codec: str) -> None:
    """What the file then says is used, or has a reason, or the file is no audio any more."""
    sound = tagged(tmp_path / name, codec)
    marks = [at for at in range(len(sound)) if sound[at : at + 2] in (b"R\xc3", b"14", b"Am", b"GE", b"TB", b"Ti")]
    assert normalise(probe(tmp_path / name).tags, {})["key"] == "A minor"
    for seed in range(60):
        rng = random.Random(f"{name} {seed}")
        data = bytearray(sound)
        for _ in range(rng.randint(1, 6)):
            data[max(0, min(len(data) - 1, rng.choice(marks) + rng.randint(-12, 40)))] = rng.randrange(256)
        (tmp_path / f"{seed} {name}").write_bytes(data)
        try:
            tags = probe(tmp_path / f"{seed} {name}").tags
        except AudioError:
            continue
        assert all(fact.text or fact.why for fact in facts_of(tags))
        json.dumps(normalise(tags, {})).encode()


NAMES = st.sampled_from(["genre", "Style", "TBPM", "bpm", "tempo", "initialkey", "key", "scale", "MOOD", "instruments",
                         "title", "date", "x", "", " key "])  # fmt: skip
VALUES = st.one_of(st.text(max_size=150), st.sampled_from(["Am", "8A", "140", "139.98bpm", "0", "Rock", "minor", "9"]))


@given(st.dictionaries(NAMES, VALUES, max_size=8), st.dictionaries(NAMES, VALUES, max_size=8))
@settings(max_examples=100, deadline=None)
def test_spoilt_tags(file_tags: dict[str, str], fields: dict[str, str]) -> None:
    facts = normalise(file_tags, fields)
    assert all(text and len(text) <= 120 and text == " ".join(text.split()) for text in facts.values())
    for stated in (file_tags, fields):
        for fact in facts_of(stated):
            assert fact.text or fact.why, "every tag is used, or has a reason"


TEMPO = st.sampled_from(
    ["{}bpm", "{} BPM", "bpm: {}", "BPM={}", "tempo {}", "♩ = {}", "at {}", "{}-bpm", "{} beats per minute"]
)
KEY = st.sampled_from(["{} minor", "{}m", "in {} Minor", "{}-Moll", "{} min", "key of {} minor", "{} mineur"])
OWNED, TAGGED, HEARD = range(100, 120), range(140, 160), range(180, 200)


def statement(bpms: range, notes: str) -> st.SearchStrategy[str]:
    """Words that may state a tempo of `bpms` and a key of `notes`."""
    tempo = st.builds(str.format, TEMPO, st.sampled_from(bpms))
    key = st.builds(str.format, KEY, st.sampled_from(notes))
    words = st.sampled_from(["slow", "sad", "fast ballad", "", "mid-tempo"])
    return st.lists(st.one_of(tempo, key, words), max_size=3).map(", ".join)


@given(
    own=st.lists(statement(OWNED, "AB"), max_size=3),
    trigger=st.one_of(st.just(""), st.just("in my style"), statement(OWNED, "AB")),
    genre=statement(TAGGED, "CD"),
    mood=statement(TAGGED, "CD"),
    tagged=st.tuples(st.sampled_from(TAGGED), st.sampled_from("CD")),
    heard=st.tuples(st.sampled_from(HEARD), st.sampled_from("EF")),
    sources=st.permutations(["own", "tags", "features"]),
)
@settings(max_examples=100, deadline=None)
def test_no_caption_states_two_tempi_or_two_keys(own, trigger, genre, mood, tagged, heard, sources) -> None:
    """Which source said a thing is read off the numbers and notes, which no two sources share."""
    tags = {"genre": genre, "mood": mood, "bpm": str(tagged[0]), "key": f"{tagged[1]} minor"}
    features = Features(float(heard[0]), 0.9, f"{heard[1]} minor", 0.9)
    facts = ClipFacts([text for text in own if text], tags, features=features)
    whole = CaptionSettings(trigger=trigger, sources=sources, variants=16)
    for caption in compose(facts, whole, 0, "x"):
        numbers = {int(number) for number in re.findall(r"(?<!\d)1\d\d(?!\d)", caption)}
        notes = set(re.findall(r"(?:^|[\s,:])([A-F])(?=m\b|-Moll| m)", caption, re.IGNORECASE))
        of = [{n for n in numbers if n in bpms} for bpms in (OWNED, TAGGED, HEARD)]
        assert sum(map(bool, of)) <= 1, f"tempi of two sources: {caption}"
        assert len(of[1]) <= 1, f"two tempi from tags: {caption}"
        by = [{n for n in notes if n.upper() in letters} for letters in ("AB", "CD", "EF")]
        assert sum(map(bool, by)) <= 1 and len(by[1]) <= 1, f"keys of two sources: {caption}"
        if any(n in OWNED for n in numbers):
            assert not of[1] and not of[2], f"the owner's tempo is not alone: {caption}"
