"""An adapter that plays along: trained, resumed, saved, read, refused where it is damaged, sampled with a recording."""

import json
import shutil

import numpy as np
import pytest
import soundfile
import torch
from live_fixtures import QUICK, Ear, opened
from safetensors.torch import load_file, save_file
from test_pairs import settings_of, write_multitracks
from torch.testing import assert_close
from training_fixtures import quick

from adapters import adapter_files, bundle
from adapters.merge import merge
from adapters.play_along import read_context
from adapters.sampler import AdapterSpec, Sampler
from configs.errors import UserError
from configs.live import LiveSettings
from configs.sample import SampleSettings
from data_prep.base_files import resolve_base
from data_prep.codec.registry import load_base_codec
from data_prep.prepare import prepare
from finetune.batches import Clip, Degraded, Stream
from finetune.cli import main
from finetune.live.run import open_session
from finetune.run_folder import RunFolder, resumed_settings, saved_settings
from finetune.train import train

CONDITIONS = "conditions.safetensors"
pytestmark = pytest.mark.usefixtures("prep_in_this_process")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("along")
    return prepare(write_multitracks(folder / "songs"), folder / "data", settings_of()).out


def wanted(**more):
    return quick(steps=4, max_clip_sec=2.0, context={"size": 8, "lookahead_sec": 0.1, **more})


@pytest.fixture(scope="module")
def adapter(data, tmp_path_factory):
    return train(data, tmp_path_factory.mktemp("run") / "run", wanted())


def test_training_moves_the_added_weights_and_the_files_hold_it(adapter):
    read = adapter_files.load(adapter)
    assert list(read.added) == ["context"]
    assert read.added["context"].out.weight.abs().max() > 0
    assert read.woodshed is not None
    told = read.woodshed.conditions[0]
    assert (read.woodshed.schema_version, told.pair, told.lookahead_frames) == (2, "drums|rest", 5)
    card = (adapter / "README.md").read_text()
    assert "in two halves" in card
    assert "from peft import" not in card


def test_a_prefix_is_trained_saved_inspected_and_played(data, demo, tmp_path, capsys):
    settings = quick(
        steps=2, max_clip_sec=2.0, context={"size": 8, "lookahead_sec": 0.1, "way": "prefix", "stride_frames": 4}
    )
    made = train(data, tmp_path / "run", settings)
    read = adapter_files.load(made)
    assert read.added["context"].stride == 4
    assert read.added["context"].out.weight.shape[1] == 4 * 8
    assert read.added["context"].out.weight.abs().max() > 0
    assert read.woodshed is not None
    assert read.woodshed.conditions[0].stride_frames == 4
    assert "context (drums|rest), as a prefix" in (made / "README.md").read_text().replace("\\", "")
    assert main(["inspect", str(made)]) == 0
    assert "as a prefix with an entry for 4 frames" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(UserError, match="asks for"):
        adapter_files.load(spoilt(made, tmp_path, told(stride_frames=5)))
    words = [
        "sample",
        str(made),
        "tight drums",
        "--with",
        str(demo),
        "--out",
        str(tmp_path / "out"),
        "--device",
        "cpu",
    ]
    assert main([*words, "--duration", "2", "--window_sec", "1", "--overlap_sec", "0.4"]) == 0
    assert len(list((tmp_path / "out").glob("*.wav"))) == 2


def test_a_description_without_a_prefix_says_nothing_of_one(adapter):
    assert "stride_frames" not in json.loads((adapter / "woodshed.json").read_text())["conditions"][0]


def test_a_run_goes_on_to_the_bit(data, adapter, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(adapter.parent, run)
    shutil.rmtree(run / "checkpoints" / "checkpoint-4")
    shutil.rmtree(run / "adapter")
    again = train(data, run, wanted(), resume=True)
    for name in ("adapter_model.safetensors", CONDITIONS):
        whole, resumed = load_file(adapter / name), load_file(again / name)
        assert whole.keys() == resumed.keys()
        assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_run_from_before_there_were_holes_goes_on_without(adapter, tmp_path):
    shutil.copytree(adapter.parent, tmp_path / "run")
    config = tmp_path / "run" / "config.yaml"
    lines = config.read_text().splitlines(keepends=True)
    config.write_text("".join(line for line in lines if "history_dropout" not in line))
    folder = RunFolder(tmp_path / "run")
    assert saved_settings(folder).context.history_dropout == 0
    assert resumed_settings(folder, wanted()).context.history_dropout == 0
    assert saved_settings(RunFolder(adapter.parent)).context.history_dropout == 0.8


def test_training_hides_part_of_the_past(data, adapter, tmp_path):
    shown = train(data, tmp_path / "run", wanted(history_dropout=0.0))
    with_holes, without = (load_file(folder / CONDITIONS)["context.out.weight"] for folder in (adapter, shown))
    assert not torch.equal(with_holes, without)


def test_text_and_context_are_dropped_on_their_own_and_together():
    clips = [Clip(f"c{number}", 50, ("words",)) for number in range(2000)]
    more = {"kinds": ["context"], "degraded": Degraded(2, 0.5)}
    draws = Stream(clips, seed=0, max_frames=50, condition_dropout=0.1, **more).step(0, 2000)
    without_text = [draw for draw in draws if draw.caption is None]
    assert 0.15 < len(without_text) / 2000 < 0.23
    assert 0.4 < np.mean([bool(draw.dropped) for draw in without_text]) < 0.7
    assert 0.07 < np.mean([bool(draw.dropped) for draw in draws if draw.caption]) < 0.13
    assert 0.45 < np.mean([draw.degraded > 0 for draw in draws]) < 0.55
    assert {draw.degraded for draw in draws} == {0, 1, 2}
    plain = Stream(clips, seed=0, max_frames=50, condition_dropout=0.1).step(0, 2000)
    assert all(not draw.dropped and not draw.degraded for draw in plain)


def spoilt(adapter, tmp_path, change):
    """A copy of the adapter with something done to it."""
    copy = tmp_path / "copy"
    shutil.copytree(adapter, copy)
    change(copy)
    return copy


def changed_tensors(change):
    def spoil(folder):
        tensors = load_file(folder / CONDITIONS)
        save_file(change(tensors), folder / CONDITIONS)

    return spoil


def told(**changes):
    def spoil(folder):
        value = json.loads((folder / "woodshed.json").read_text())
        value["conditions"][0] |= changes
        (folder / "woodshed.json").write_text(json.dumps(value))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda folder: (folder / CONDITIONS).unlink(), "it is missing"),
        (lambda folder: (folder / "woodshed.json").unlink(), "does not say what it is for"),
        (lambda folder: (folder / CONDITIONS).write_bytes(b"PK\x03\x04"), "pickle"),
        (changed_tensors(lambda t: {k: v for k, v in t.items() if "tables" not in k}), "context.tables is missing"),
        (changed_tensors(lambda t: {**t, "more": torch.zeros(1)}), "more is not part of any condition"),
        (changed_tensors(lambda t: {k: v[..., :-1].contiguous() for k, v in t.items()}), "has the shape"),
        (changed_tensors(lambda t: {k: v * torch.nan for k, v in t.items()}), "no numbers"),
        (told(size=4096), "asks for"),
        (told(width=3), "3 codes per frame"),
        (told(lookahead_frames=-1), "does not describe an adapter"),
    ],
)
def test_a_damaged_half_is_refused_in_a_sentence(adapter, tmp_path, spoil, why):
    with pytest.raises(UserError, match=why):
        adapter_files.load(spoilt(adapter, tmp_path, spoil))


def test_version_one_cannot_have_conditions_and_version_two_must(adapter, tmp_path):
    def back(folder):
        value = json.loads((folder / "woodshed.json").read_text())
        (folder / "woodshed.json").write_text(json.dumps({**value, "schema_version": 1}))

    with pytest.raises(UserError, match="schema_version 2"):
        adapter_files.load(spoilt(adapter, tmp_path, back))


def test_a_bundle_holds_both_halves(adapter, tmp_path):
    bundle.pack(adapter, tmp_path / "adapter.zip")
    read = bundle.unpack(tmp_path / "adapter.zip", tmp_path / "there")
    assert_close(read.added["context"].out.weight, adapter_files.load(adapter).added["context"].out.weight)


def test_merging_would_lose_half_of_it(adapter, tmp_path):
    with pytest.raises(UserError, match="cannot be merged"):
        merge(resolve_base("debug"), [(adapter_files.load(adapter), 1.0)], tmp_path / "merged")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """2.5 s in stereo at another rate, with silence in it."""
    path = tmp_path_factory.mktemp("demo") / "demo.wav"
    t = np.arange(round(2.5 * 44_100)) / 44_100
    audio = 0.2 * np.sin(2 * np.pi * 220 * t) * (t < 1.5)
    soundfile.write(path, np.stack([audio, audio * 0.5], axis=1), 44_100)
    return path


def test_the_context_stretch_is_read_to_the_sample(demo):
    codec = load_base_codec(resolve_base("debug"), torch.device("cpu"))
    whole = read_context(demo, None, None, codec)
    assert abs(whole.audio.shape[1] - 2.5 * codec.sample_rate_hz) <= 1
    part = read_context(demo, 0.5, 1.0, codec)
    start = round(0.5 * codec.sample_rate_hz)
    assert_close(part.audio, whole.audio[:, start : start + codec.sample_rate_hz])
    assert part.codes.shape == (-(-part.audio.shape[1] // codec.hop_samples), codec.n_codebooks)
    mixed = whole.mix(0.01 * torch.ones_like(whole.audio))
    assert mixed.shape == whole.audio.shape
    assert mixed.abs().max() <= 1
    for from_sec, duration_sec, why in [(None, 30.0, "has 2.5 s, and 30 s were asked for"), (9.0, None, "ends before")]:
        with pytest.raises(UserError, match=why):
            read_context(demo, from_sec, duration_sec, codec)


def test_sample_writes_the_part_and_the_mix_as_long_as_the_recording(adapter, demo, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["sample", str(adapter), "tight drums", "--with", str(demo), "--from", "0.4", "--out", str(out)]
    page = tmp_path / "page.html"
    assert main([*words, "--device", "cpu", "--window_sec", "1", "--overlap_sec", "0.4", "--page", str(page)]) == 0
    shown = page.read_text()
    assert shown.count("<audio") == 4
    assert all(name in shown for name in ("context", "part", "mix", "control", "tight drums"))
    found = sorted(path.name for path in out.glob("*.wav"))
    assert len(found) == 2
    assert found[0].endswith("-mix.wav") or found[1].endswith("-mix.wav")
    sounds = [soundfile.read(out / name) for name in found]
    assert len({len(sound) for sound, _ in sounds}) == 1
    assert abs(len(sounds[0][0]) - 2.1 * sounds[0][1]) <= 1


def test_sampling_without_the_other_half_is_refused(adapter, demo, tmp_path, capsys):
    for words, why in [
        ([str(adapter), "drums"], "plays along with another track"),
        (["--base", "debug", "drums", "--with", str(demo)], "a base alone follows no context track"),
        ([str(adapter), "drums", "--with", str(tmp_path / "none.wav")], "is not there"),
        ([str(adapter), "drums", "--with", str(demo), "--duration", "9"], "9 s were asked for"),
        ([str(adapter), "drums", "--with", str(demo), "--loop"], "leave out --continue and --loop"),
        ([str(adapter), "drums", "--page", "page.html"], "it needs --with"),
    ]:
        assert main(["sample", *words, "--device", "cpu", "--out", str(tmp_path / "out")]) != 0
        said = capsys.readouterr()
        assert why in " ".join((said.out + said.err).split()), why


def test_evaluate_says_what_it_cannot_judge(adapter, capsys):
    assert main(["evaluate", str(adapter), "--no-store"]) == 2
    assert "cannot be judged from prompts alone" in " ".join(capsys.readouterr().err.split())


def test_inspect_tells_what_it_follows(adapter, capsys):
    assert main(["inspect", str(adapter)]) == 0
    assert "context (drums|rest), 5 frames ahead" in " ".join(capsys.readouterr().out.split())


def test_the_recording_again_and_again(demo):
    codec = load_base_codec(resolve_base("debug"), torch.device("cpu"))
    track = read_context(demo, 1.201, None, codec)
    period, length = len(track.codes) * codec.hop_samples, track.audio.shape[1]
    assert length < period, "the last frame is not whole"
    heard = track.from_sample(0, 2 * period + 5)
    assert torch.equal(heard[:, :length], track.audio) and not heard[:, length:period].any()
    assert torch.equal(heard[:, period : period + length], track.audio)
    assert torch.equal(track.from_sample(length - 3, 50), heard[:, length - 3 : length + 47])


@pytest.fixture
def playing(adapter, demo, tmp_path):
    """A session along the last 1.4 s of the demo, a tone and silence, in windows shorter than what is heard of it."""
    settings = LiveSettings.model_validate({**QUICK, "window_sec": 0.8, "overlap_sec": 0.3})
    session = open_session([AdapterSpec(adapter)], settings, folder=tmp_path, context=demo, from_sec=1.1)
    yield session
    session.close()


def test_live_plays_along_without_end(adapter, demo, playing):
    ear = Ear(playing)
    playing.start()
    ear.until(lambda: ear.seconds() > 2.4)
    playing.stop()
    heard, codec = ear.audio(), load_base_codec(resolve_base("debug"), torch.device("cpu"))
    track = read_context(demo, 1.1, None, codec)
    settings = SampleSettings.model_validate(
        {"duration_sec": 2.3, "window_sec": 0.8, "overlap_sec": 0.3, "precision": "fp32"}
    )
    sampler = Sampler.load(resolve_base("debug"), [AdapterSpec(adapter)], settings, live=True)
    again = {"context": track.codes.repeat(5, 1)[: round(2.3 * sampler.frame_rate)]}
    part = sampler.sample([playing.controls.first[0].text], also=[again])[0].waveform
    n = part.shape[1] - round(0.3 * codec.sample_rate_hz)  # the codec hears what follows, and there nothing does
    assert n > 2 * sampler.settings.window_sec * codec.sample_rate_hz
    assert_close(heard[:, :n], 0.5 * (part[:, :n] + track.from_sample(0, n)), rtol=0, atol=2e-3)


def test_the_recording_can_be_turned_down_to_the_part_alone(playing):
    ear = Ear(playing)
    playing.set_context_level(0.0)
    with pytest.raises(UserError, match="between 0 and 2"):
        playing.set_context_level(3.0)
    playing.start()
    ear.until(lambda: ear.seconds() > 0.5)
    alone = ear.audio()
    playing.reset()
    playing.set_context_level(0.5)
    ear.until(lambda: ear.seconds() > 1.5 and ear.chunks[-1].run == 2 and ear.chunks[-1].second > 0.5)
    n = min(alone.shape[1], ear.audio(2).shape[1])
    track = playing.worker.player._context
    assert_close(ear.audio(2)[:, :n], alone[:, :n] + 0.25 * track.from_sample(0, n), rtol=0, atol=1e-4)


def test_live_says_where_a_recording_is_missing_or_of_no_use(adapter, demo, tmp_path, capsys):
    with pytest.raises(UserError, match="plays along with a recording"):
        open_session([AdapterSpec(adapter)], LiveSettings())
    for words, why in [
        ([str(adapter), "--with", str(tmp_path / "none.wav")], "is not there"),
        ([str(adapter), "--from", "3"], "--from says where in the recording"),
        (["--base", "debug", "--with", str(demo)], "nothing here follows a context track"),
    ]:
        assert main(["live", *words, "--device", "cpu"]) == 2
        assert why in " ".join(capsys.readouterr().err.split())
    with (
        opened(resolve_base("debug").folder, None, tmp_path) as plain,
        pytest.raises(UserError, match="nothing is played along with"),
    ):
        plain.set_context_level(0.5)
