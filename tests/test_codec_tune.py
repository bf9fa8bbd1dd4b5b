"""`woodshed codec tune`: the decoder learns, tokens stay, a stopped run goes on exactly, and the file is checked."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from adapters.merge import merge
from adapters.sampler import Sampler
from configs.errors import UserError
from configs.sample import SampleSettings
from data_prep.base_files import resolve_base
from data_prep.codec.low_rank_decoder import is_low_rank, whole_of
from data_prep.codec.registry import base_codec_fingerprint, load_base_codec
from data_prep.codec.transformers_codec import TransformersCodec
from data_prep.codec.tuned_decoder import decoder_in_place, decoder_of, read_decoder, use_decoder
from data_prep.write_audio import write_audio
from finetune import cli
from finetune.codec_tune.learner import DecoderLearner
from finetune.codec_tune.low_rank import LowRankDecoder
from finetune.codec_tune.recordings import Crops, hold_out, read_recordings
from finetune.codec_tune.settings import TuneSettings
from finetune.codec_tune.state import STATE, start_folder
from finetune.codec_tune.strength import choose_strength
from finetune.codec_tune.tune import Tuned, tune

SETTINGS = TuneSettings(steps=8, lr=3e-3, batch_size=2, crop_sec=0.2, every_steps=4)


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three short songs of plucked tones, and one that is too short."""
    folder = tmp_path_factory.mktemp("songs")
    time = np.arange(2 * 32_000) / 32_000
    for number, hz in enumerate((220.0, 330.0, 440.0)):
        plucks = np.sin(2 * np.pi * hz * time) * np.exp(-8 * (time % 0.5))
        write_audio(folder / f"song {number}.wav", (0.5 * plucks)[None].astype(np.float32), 32_000)
    write_audio(folder / "tiny.wav", np.zeros((1, 3_000), np.float32), 32_000)
    return folder


@pytest.fixture
def codec(mono_base: Path) -> TransformersCodec:
    loaded = load_base_codec(resolve_base(str(mono_base)))
    assert isinstance(loaded, TransformersCodec)
    return loaded


@pytest.fixture(scope="module")
def tuned(songs: Path, mono_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a decoder of a few steps."""
    out = tmp_path_factory.mktemp("tuned") / "out"
    loaded = load_base_codec(resolve_base(str(mono_base)))
    assert isinstance(loaded, TransformersCodec)
    result = tune(songs, out, loaded, SETTINGS)
    assert result.after < result.before and "tiny.wav" in result.left_out[0]
    return out


def test_only_the_decoder_learns(tuned: Path, codec: TransformersCodec, songs: Path) -> None:
    before = {name: tensor.clone() for name, tensor in codec.model.state_dict().items()}
    (clip,) = codec.encode([torch.from_numpy(read_recordings(songs, codec, shortest_sec=0.1)[0][0].audio / 32767)])
    plain = codec.decode(clip)
    told = use_decoder(codec, tuned / "decoder.safetensors")
    after = codec.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.startswith("decoder.") for name in changed)
    assert float(told["held_out_mel_after"]) < float(told["held_out_mel_before"])
    assert (codec.decode(clip) - plain).abs().max() > 1e-3


def test_a_stopped_run_goes_on_exactly(
    songs: Path, mono_base: Path, tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fresh() -> TransformersCodec:
        loaded = load_base_codec(resolve_base(str(mono_base)))
        assert isinstance(loaded, TransformersCodec)
        return loaded

    real: Callable = DecoderLearner.step

    def stopped(self, crops: Crops, step: int):
        if step == 6:
            raise KeyboardInterrupt
        return real(self, crops, step)

    monkeypatch.setattr(DecoderLearner, "step", stopped)
    with pytest.raises(KeyboardInterrupt):
        tune(songs, tmp_path / "out", fresh(), SETTINGS)
    monkeypatch.setattr(DecoderLearner, "step", real)
    with pytest.raises(UserError, match="another lr"):
        tune(songs, tmp_path / "out", fresh(), replace(SETTINGS, lr=1.0))
    tune(songs, tmp_path / "out", fresh(), SETTINGS)
    for file in ("decoder.safetensors", "state.safetensors"):
        whole, resumed = load_file(tuned / file), load_file(tmp_path / "out" / file)
        assert whole.keys() == resumed.keys() and all(torch.equal(whole[name], resumed[name]) for name in whole)


def fresh_codec(mono_base: Path) -> TransformersCodec:
    loaded = load_base_codec(resolve_base(str(mono_base)))
    assert isinstance(loaded, TransformersCodec)
    return loaded


def test_low_rank_changes_make_a_small_file_that_means_the_same(songs: Path, mono_base: Path, tmp_path: Path) -> None:
    settings = replace(SETTINGS, rank=1, steps=6, every_steps=3)
    result = tune(songs, tmp_path / "out", fresh_codec(mono_base), settings, other=songs, forget=9.0)
    tensors, told = read_decoder(result.path)
    old = decoder_of(fresh_codec(mono_base)).state_dict()
    assert is_low_rank(tensors) and result.after < result.before and told["changes"]
    matrices = {name for name in old if f"{name}.low_rank_up" in tensors}
    assert any("lstm" in name for name in matrices) and any("original1" in name for name in matrices)
    assert sum(value.numel() for value in tensors.values()) < 0.5 * sum(value.numel() for value in old.values())
    codec = fresh_codec(mono_base)
    use_decoder(codec, result.path)
    for name, value in decoder_of(codec).state_dict().items():
        if name in matrices:
            change = (value - old[name]).reshape(value.shape[0], -1)
            assert change.abs().max() > 0 and torch.linalg.matrix_rank(change, atol=1e-5) == 1
    with pytest.raises(UserError, match="another decoder is in its place"):
        use_decoder(codec, result.path)
    name = f"{min(matrices)}.low_rank_up"
    save_file(tensors | {name: tensors[name][1:]}, tmp_path / "short.safetensors", told)
    lost = {key: value for key, value in tensors.items() if key != name.replace("_up", "_down")}
    save_file(lost, tmp_path / "lost.safetensors", told)
    for file in ("short", "lost"):
        with pytest.raises(UserError, match="do not fit"):
            use_decoder(fresh_codec(mono_base), tmp_path / f"{file}.safetensors")


def test_a_stopped_low_rank_run_goes_on_exactly(songs: Path, mono_base: Path, tmp_path: Path) -> None:
    """Half of the steps, the same learning rates: what stands after four steps is what four of eight give."""
    settings, learners = replace(SETTINGS, rank=2), []
    for _ in range(2):
        learners.append(DecoderLearner(fresh_codec(mono_base), settings))
    first, second = learners
    recordings, _ = read_recordings(songs, first.codec, shortest_sec=0.6)
    crops = Crops(recordings, [], other_share=0.0, seed=0, hop=first.codec.hop_samples)
    for step in range(3):
        first.step(crops, step)
    for name, module in second.modules.items():
        module.load_state_dict(first.modules[name].state_dict())
    second.optimizers["decoder"].load_state_dict(copy.deepcopy(first.optimizers["decoder"].state_dict()))
    second.sync()
    assert first.step(crops, 3) == second.step(crops, 3)
    for one, other in zip(first.average.state_dict().values(), second.average.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_gradients_of_factors_are_those_of_autograd() -> None:
    torch.manual_seed(0)
    conv = torch.nn.Conv1d(6, 8, 3)
    low_rank = LowRankDecoder(conv, 2, seed=0)
    up = next(value for key, value in low_rank.values.items() if key.endswith("up"))
    up.data.normal_()
    low_rank.put_into(conv)
    audio = torch.randn(2, 6, 20)
    conv(audio).pow(2).sum().backward()
    low_rank.take_gradients(conv)
    factors = {name: value.clone().requires_grad_(True) for name, value in low_rank.tensors().items()}
    whole = whole_of(low_rank.old, factors)
    torch.nn.functional.conv1d(audio, whole["weight"], whole["bias"]).pow(2).sum().backward()
    for name, value in factors.items():
        ours = low_rank.values[name.replace(".", "|")].grad
        torch.testing.assert_close(ours, value.grad, rtol=1e-4, atol=1e-4)


def test_what_is_kept_is_the_mean_of_the_weights(songs: Path, mono_base: Path) -> None:
    settings = replace(SETTINGS, average=0.5)
    learner = DecoderLearner(fresh_codec(mono_base), settings)
    crops = Crops(read_recordings(songs, learner.codec, shortest_sec=0.6)[0], [], other_share=0.0, seed=0,
                  hop=learner.codec.hop_samples)  # fmt: skip
    name, mean = next(iter(learner.decoder.named_parameters()))[0], None
    mean = learner.before.state_dict()[name].clone()
    for step in range(6):
        learner.step(crops, step)
        mean = torch.lerp(mean, learner.decoder.state_dict()[name], 1 - min(0.5, (1 + step) / (10 + step)))
    torch.testing.assert_close(learner.average.state_dict()[name], mean)
    assert not torch.equal(mean, learner.decoder.state_dict()[name])


def test_other_music_keeps_the_old_decoder_s_sound(songs: Path, mono_base: Path) -> None:
    """With `keep_old` the first step on other music alone has nothing to learn: old and learning decoder agree."""
    for keep_old in (True, False):
        learner = DecoderLearner(fresh_codec(mono_base), replace(SETTINGS, keep_old=keep_old))
        recordings, _ = read_recordings(songs, learner.codec, shortest_sec=0.6)
        crops = Crops(recordings, recordings, other_share=1.0, seed=0, hop=learner.codec.hop_samples)
        assert crops.batch(0, 2, 10, 5).is_other.all()
        losses = learner.step(crops, 0)
        assert (losses["mel"] < 1e-5) == keep_old and (losses["wave"] < 1e-6) == keep_old


def test_another_decoder_in_place_is_taken_out_again(mono_base: Path) -> None:
    codec = fresh_codec(mono_base)
    own, codes = decoder_of(codec), np.zeros((4, 10), np.int16)
    other = decoder_of(fresh_codec(mono_base))
    for value in other.parameters():
        value.data.mul_(0.5)
    plain = codec.decode(codes)
    with pytest.raises(KeyError), decoder_in_place(codec, other):
        assert not torch.equal(codec.decode(codes), plain)
        raise KeyError
    assert decoder_of(codec) is own and torch.equal(codec.decode(codes), plain)


def test_crops_are_what_the_codes_say(codec: TransformersCodec, songs: Path) -> None:
    recordings, _ = read_recordings(songs, codec, shortest_sec=0.5)
    kept, held = hold_out(recordings)
    assert len(kept) == 2 and [one.name for one in held] == ["song 1.wav"]
    crops = Crops(kept, held, other_share=0.5, seed=0, hop=codec.hop_samples)
    one, again = crops.batch(3, 4, 10, 5), crops.batch(3, 4, 10, 5)
    assert torch.equal(one.codes, again.codes) and not torch.equal(one.codes, crops.batch(4, 4, 10, 5).codes)
    assert one.codes.shape == (4, 4, 20) and one.audio.shape == (4, 1, 10 * codec.hop_samples)
    for codes, audio in zip(one.codes, one.audio, strict=True):
        places = [
            (song, at)
            for song in recordings
            for at in range(song.codes.shape[1] - 19)
            if np.array_equal(song.codes[:, at : at + 20], codes.numpy())
        ]
        wanted = [song.audio[:, (at + 5) * 640 : (at + 15) * 640] / 32767 for song, at in places]
        assert any(np.allclose(audio.numpy(), sound, atol=1e-6) for sound in wanted)


def test_other_music_is_measured_beside(songs: Path, codec: TransformersCodec, tmp_path: Path) -> None:
    settings = replace(SETTINGS, steps=1, every_steps=1, discriminators=True)
    result = tune(songs, tmp_path / "out", codec, settings, other=songs)
    assert result.other_before == pytest.approx(result.before) and result.other_after is not None
    assert "judges" in (tmp_path / "out" / "log.jsonl").read_text()


def test_other_music_loses_no_more_than_it_may(songs: Path, mono_base: Path, tmp_path: Path) -> None:
    def again(forget: float, other: Path | None = songs) -> Tuned:
        loaded = load_base_codec(resolve_base(str(mono_base)))
        assert isinstance(loaded, TransformersCodec)
        return tune(songs, tmp_path / "out", loaded, replace(SETTINGS, steps=2), other=other, forget=forget)

    free = again(9.0)
    full, told = read_decoder(free.path)
    assert free.strength == 1 and free.after == free.full and told["strength"] == "1"
    assert free.other_before is not None and free.other_full is not None and free.full < free.before
    with pytest.raises(UserError, match="another other_music"):
        again(9.0, other=None)
    old = decoder_of(load_base_codec(resolve_base(str(mono_base)))).state_dict()
    none = again(-1.0)  # nothing is good enough: the old decoder
    kept, told = read_decoder(none.path)
    assert none.strength == 0 and none.after == pytest.approx(none.before) and told["strength"] == "0"
    assert all(torch.equal(kept[name], old[name]) for name in old)
    back, _ = read_decoder(again(9.0).path)
    assert all(torch.equal(back[name], full[name]) for name in full), "another bound only chooses again"


@pytest.mark.parametrize(("bound", "strength"), [(1.0, 1.0), (0.64, 0.8), (0.5, 0.7), (0.0, 0.0)])
def test_the_strength_is_the_largest_within_the_bound(bound: float, strength: float) -> None:
    decoder = torch.nn.Linear(1, 1)
    old = {"weight": torch.zeros(1, 1), "bias": torch.ones(1)}
    tuned = {"weight": torch.ones(1, 1), "bias": torch.ones(1)}

    def squared() -> float:
        return decoder.weight.item() ** 2 - 1e-6

    chosen = choose_strength(
        decoder, old, tuned, own=lambda: decoder.weight.item(), other=squared, other_at_most=bound
    )  # fmt: skip
    assert chosen.strength == strength and chosen.own == pytest.approx(strength) and decoder.bias.item() == 1


def test_sample_and_merge_take_it(tuned: Path, mono_base: Path, tmp_path: Path) -> None:
    files, path = resolve_base(str(mono_base)), tuned / "decoder.safetensors"
    settings = SampleSettings.model_validate({"duration_sec": 1.0, "device": "cpu", "decoder": str(path)})
    take = Sampler.load(files, (), settings).sample(["drums"])[0]
    codec = load_base_codec(files)
    plain = codec.decode(take.codes)
    use_decoder(codec, path)
    torch.testing.assert_close(take.waveform, codec.decode(take.codes))
    assert (take.waveform - plain).abs().max() > 1e-3
    merge(files, (), tmp_path / "merged", decoder=path)
    merged = load_base_codec(resolve_base(str(tmp_path / "merged")))
    torch.testing.assert_close(merged.decode(take.codes), take.waveform)
    (before,), (after,) = codec.encode([take.waveform]), merged.encode([take.waveform])
    np.testing.assert_array_equal(before, after)
    assert "tuned" in (tmp_path / "merged" / "README.md").read_text()


def test_files_that_do_not_belong_are_refused(tuned: Path, stereo_base: Path, mono_base: Path, tmp_path: Path) -> None:
    path = tuned / "decoder.safetensors"
    tensors, told = read_decoder(path)
    codec = load_base_codec(resolve_base(str(mono_base)))
    assert told["codec"] == base_codec_fingerprint(resolve_base(str(mono_base)))
    save_file(tensors, tmp_path / "other.safetensors", told | {"codec": "0" * 16})
    with pytest.raises(UserError, match="tuned for another codec"):
        use_decoder(codec, tmp_path / "other.safetensors")
    name = next(iter(tensors))
    save_file(tensors | {name: tensors[name] * torch.nan}, tmp_path / "nan.safetensors", told)
    with pytest.raises(UserError, match="do not fit"):
        use_decoder(codec, tmp_path / "nan.safetensors")
    save_file(tensors, tmp_path / "plain.safetensors")
    with pytest.raises(UserError, match="no tuned decoder"):
        use_decoder(codec, tmp_path / "plain.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"not this")
    with pytest.raises(UserError, match="cannot be read"):
        use_decoder(codec, tmp_path / "broken.safetensors")
    assert all(torch.equal(value, tensor) for value, tensor in zip(
        decoder_of(codec).state_dict().values(),
        decoder_of(load_base_codec(resolve_base(str(mono_base)))).state_dict().values(), strict=True
    )), "a refused file changes nothing"  # fmt: skip


def test_the_command(songs: Path, mono_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = f"codec tune#{songs}#{tmp_path / 'out'}#--codec#{mono_base}#--steps#1#--device#cpu"
    assert cli.main(line.replace("codec tune", "codec#tune").split("#")) == 0
    told = capsys.readouterr().out
    assert "held-out songs: mel distance" in told and "left out: tiny.wav" in told
    assert cli.main(["codec", "tune", str(songs)]) == 2


def test_a_sampled_file_says_which_decoder_made_its_sound(
    tuned: Path, mono_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import hashlib
    import json

    from data_prep.decode import probe

    path = tuned / "decoder.safetensors"
    words = ["sample", "drums", "--base", str(mono_base), "--decoder", str(path), "--out", str(tmp_path / "out")]
    assert cli.main([*words, "--duration_sec", "0.5", "--device", "cpu"]) == 0, capsys.readouterr().err
    (piece,) = (tmp_path / "out").glob("*.wav")
    told = " ".join(probe(piece).tags.values())
    assert hashlib.sha256(path.read_bytes()).hexdigest() in told and str(tuned) not in told
    assert json.dumps("decoder.safetensors") in told


def test_what_a_kill_left_half_written_is_no_other_thing(tmp_path: Path) -> None:
    """A state that was never renamed into place; somebody's own file is another matter."""
    (tmp_path / f".{STATE}.123.part").write_bytes(b"half")
    start_folder(tmp_path, "the codec", ("log.jsonl",), ["log.jsonl"])
    assert not list(tmp_path.iterdir())
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="The folder for the codec holds other things"):
        start_folder(tmp_path, "the codec", ("log.jsonl",), [])
    assert (tmp_path / "letter.txt").read_text() == "dear"
