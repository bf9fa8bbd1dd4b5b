"""`--pair`: what may be asked for, which clips have both sides, and the context side in step with the target."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from configs.errors import UserError
from configs.prep import PrepSettings
from data_prep.base_files import resolve_base
from data_prep.cache import Cache
from data_prep.condition_sources.clips import wanted_conditions
from data_prep.context_side import degrade, low_pass
from data_prep.pairs import parse_pair
from data_prep.prepare import prepare
from data_prep.prepared import PreparedDataset
from data_prep.scan import scan
from data_prep.song_work import find_place, read_wishes, work_on
from data_prep.stem_names import read_table, stem_of

FOUR = ("drums", "bass", "other", "vocals")
RATE_HZ = 32_000
pytestmark = [
    pytest.mark.usefixtures("prep_in_this_process"),
    pytest.mark.filterwarnings("ignore:Trying to estimate tuning from empty:UserWarning"),  # of clicks and tones
]


def test_sides_are_stems_sums_and_the_rest():
    pair = parse_pair("drums|rest", FOUR)
    assert (pair.target.name, pair.context_name) == ("drums", "bass+other+vocals")
    pair = parse_pair("rest | vocals", FOUR)
    assert (pair.name, pair.target.name, pair.context_name) == ("rest|vocals", "bass+drums+other", "vocals")
    assert parse_pair("other|drums+bass", FOUR).context_name == "bass+drums"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("drums", "two sides are wanted"),
        ("drums|", "two sides are wanted"),
        ("drums|bass|other", "two sides are wanted"),
        ("rest|rest", "rest of what"),
        ("drum|rest", "no stem 'drum'"),
        ("drums|mix", "mix holds several stems"),
        ("drums|bass+drums", "drums stands on both sides"),
        ("drums+drums|rest", "named twice"),
        ("drums+bass+other+vocals|rest", "nothing is left"),
    ],
)
def test_a_pair_that_makes_no_sense_is_refused_in_a_sentence(text, why):
    with pytest.raises(UserError, match=why):
        parse_pair(text, FOUR)


def test_file_names_say_which_stem_they_are(tmp_path):
    names = {"01 Kick In.wav": "drums", "LeadVox.flac": "vocals", "bass DI.wav": "bass", "Gtr L.wav": "other"}
    assert {name: stem_of(name, {}) for name in names} == names
    (tmp_path / "names.csv").write_text("Gtr L.wav, guitar\n\nKICK IN,bass\n")
    table = read_table(tmp_path / "names.csv")
    assert stem_of("song/gtr l.flac", table) == "guitar"
    assert stem_of("Kick In.wav", table) == "bass"
    (tmp_path / "names.csv").write_text("Gtr L.wav\n")
    with pytest.raises(UserError, match="not `file,stem`"):
        read_table(tmp_path / "names.csv")


def test_degraded_versions_are_a_function_of_the_clip_and_lack_a_stem_every_second_time():
    generator = np.random.default_rng(0)
    stems = generator.standard_normal((3, 1, RATE_HZ)).astype(np.float32) * 0.1
    one, two = (degrade(stems, number, "clip", RATE_HZ) for number in (1, 2))
    assert np.array_equal(one, degrade(stems, 1, "clip", RATE_HZ))
    assert not np.array_equal(one, degrade(stems, 1, "other", RATE_HZ))
    shares = [[abs(np.corrcoef(version[0], stem[0])[0, 1]) for stem in stems] for version in (one, two)]
    assert min(shares[0]) > 0.2
    assert min(shares[1]) < 0.05 < sorted(shares[1])[1]


def test_the_low_pass_delays_nothing():
    t = np.arange(RATE_HZ) / RATE_HZ
    low, high = np.sin(2 * np.pi * 500 * t)[None], np.sin(2 * np.pi * 9000 * t)[None]
    assert np.abs(low_pass(low, 4000.0, RATE_HZ) - low).max() < 0.01
    assert np.abs(low_pass(high, 4000.0, RATE_HZ)).max() < 0.05


def write_multitracks(folder, n_songs=3, sec=4.0):
    """Songs of clicks (drums), a tone (bass) that rests in the second half of the last song, and noise (synth)."""
    for song in range(n_songs):
        place = folder / f"song{song}"
        place.mkdir(parents=True)
        t = np.arange(round(sec * RATE_HZ)) / RATE_HZ
        draw = np.random.default_rng(song)
        clicks = (np.modf(t * 2)[0] < 0.05) * draw.standard_normal(len(t)) * 0.5
        tone = 0.3 * np.sin(2 * np.pi * (80 + 20 * song) * t)
        if song == n_songs - 1:
            tone[len(t) // 2 :] = 0
        for name, audio in {"Kick": clicks * 0.5, "Snare": clicks * 0.3, "bass": tone}.items():
            soundfile.write(place / f"{name}.wav", audio.astype(np.float32), RATE_HZ, subtype="FLOAT")
    return folder


def settings_of(**more):
    given = {"base": "debug", "pair": "drums|rest", "multitracks": True, "segment": {"max_sec": 2, "min_sec": 1}}
    captions = {"sources": ["features"]}  # no model listens: it would take longer than all the rest
    return PrepSettings.model_validate({**given, "captions": captions, "workers": 1, "device": "cpu", **more})


@pytest.fixture(scope="module")
def paired(tmp_path_factory):
    folder = tmp_path_factory.mktemp("paired")
    return prepare(write_multitracks(folder / "songs"), folder / "data", settings_of())


def test_multitracks_become_clips_with_their_context(paired):
    dataset = PreparedDataset(paired.out)
    rows = dataset.clips()
    assert {row.stems for row in rows} == {"drums"}
    assert {row.source for row in rows} == {"song0", "song1", "song2"}
    for row in rows:
        for name in ("context", "context.1", "context.2"):
            context = dataset.condition(name, row.id)
            assert context is not None
            assert context.shape == (row.n_frames, dataset.info["codec"]["n_codebooks"])
        clean, degraded = (np.array(dataset.condition(name, row.id)) for name in ("context", "context.1"))
        assert not np.array_equal(clean, degraded)
        assert not np.array_equal(clean, dataset.codes(row.id).T)
    assert dataset.info["conditions"]["context"]["pair"] == "drums|rest"


def test_clips_in_which_the_context_rests_are_left_out_and_counted(paired):
    last = [row for row in paired.rows if row.source == "song2"]
    assert [row.start_sec for row in last] == [0.0]
    said = [r for r in paired.rejected if r.what == "pair drums|rest"]
    assert [r.where for r in said] == ["song2"]
    assert said[0].why.startswith("1 of 2 clips: bass+other+vocals hardly sounds there")


def test_the_same_songs_again_change_nothing(paired):
    again = prepare(paired.out.parent / "songs", paired.out, settings_of())
    assert again.unchanged


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda place: soundfile.write(place / "bass.wav", np.zeros(RATE_HZ), RATE_HZ), "not equally long"),
        (
            lambda place: soundfile.write(place / "bass.wav", np.ones(44_100 * 4) * 0.1, 44_100),
            "different sample rates",
        ),
        (lambda place: [(place / f"{name}.wav").unlink() for name in ("Kick", "Snare")], "it has no drums, only bass"),
        (lambda place: (place / "bass.wav").unlink(), "nothing of the context bass"),
    ],
)
def test_mismatched_multitracks_are_one_sentence(tmp_path, spoil, why):
    songs = write_multitracks(tmp_path / "songs", n_songs=1)
    spoil(songs / "song0")
    with pytest.raises(UserError, match=why):
        prepare(songs, tmp_path / "data", settings_of())


def test_conditions_are_read_from_stems_that_the_pair_does_not_name(tmp_path):
    songs = write_multitracks(tmp_path / "songs", n_songs=1, sec=8.0)
    tone, rate_hz = soundfile.read(songs / "song0" / "bass.wav", dtype="float32")
    soundfile.write(songs / "song0" / "synth.wav", 0.5 * tone, rate_hz, subtype="FLOAT")
    segment = {"max_sec": 8, "min_sec": 3}
    for beat in ("drums", "instrumental"):
        made = prepare(songs, tmp_path / beat, settings_of(pair="bass|other", beat=beat, segment=segment))
        assert made.conditions["beat"] == len(made.rows)
    with pytest.raises(UserError, match="there is no stem drms"):
        prepare(songs, tmp_path / "no", settings_of(pair="bass|other", beat="drms"))


def test_a_file_that_several_parts_share_counts_for_each(tmp_path):
    """As a loop does; a folder that is the same all through is one song."""
    songs = write_multitracks(tmp_path / "songs", n_songs=1)
    (songs / "song0" / "synth.wav").write_bytes((songs / "song0" / "bass.wav").read_bytes())
    made = prepare(songs, tmp_path / "data", settings_of(pair="bass|other"))
    assert {row.stems for row in made.rows} == {"bass"}
    dataset = PreparedDataset(made.out)
    for row in made.rows:
        context = dataset.condition("context", row.id)
        assert context is not None and np.array_equal(context, dataset.codes(row.id).T)
    shutil.copytree(songs / "song0", songs / "song1")
    shutil.copytree(songs / "song0", songs / "song2")
    (songs / "song2" / "Snare.wav").unlink()
    again = prepare(songs, tmp_path / "data", settings_of(pair="bass|other"))
    assert {row.source for row in again.rows} == {"song0", "song2"}
    assert [(r.where, r.why) for r in again.rejected if r.what == "multitrack"] == [
        ("song1", "duplicate of song0: the same files")
    ]


def test_a_share_of_songs_of_which_none_can_be_used_is_no_error(tmp_path):
    """Elsewhere, on another machine of a cluster, there may be some."""
    songs, settings = write_multitracks(tmp_path / "songs", n_songs=1), settings_of()
    (songs / "song0" / "bass.wav").unlink()
    place = find_place(settings, Cache(tmp_path / "cache"))
    work = work_on(scan(songs).songs, settings, read_wishes(settings), place)
    assert not work.clips
    assert ["nothing of the context" in r.why for r in work.rejected] == [True]


def test_a_base_that_cannot_learn_to_follow_is_refused_before_any_work() -> None:
    spec = replace(resolve_base("debug").spec, adds_frames=False)
    with pytest.raises(UserError, match="cannot learn to follow another track"):
        wanted_conditions(spec, PrepSettings(base="debug", pair="drums|rest"))
