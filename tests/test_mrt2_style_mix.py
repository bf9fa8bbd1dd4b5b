"""Several styles at once: their places are averaged before they become tokens, in the sampler and on the line."""

import numpy as np
import pytest
import torch

from adapters.decode.prompt_mix import PromptMix, read_prompt_mix
from adapters.sampler import Sampler
from configs.errors import UserError
from configs.sample import SampleSettings
from data_prep.base_files import BaseFiles, resolve_base
from data_prep.decode import stream
from data_prep.style_tokens import StandInStyle, blend
from data_prep.text_encoders.style import StyleEncoder
from data_prep.write_audio import write_audio
from finetune.cli import main
from finetune.sampling.style import PieceStyle

TEXTS = ["calm piano", "fast drums"]


@pytest.fixture(scope="module")
def files() -> BaseFiles:
    return resolve_base("debug-mrt2")


@pytest.fixture(scope="module")
def sampler(files: BaseFiles) -> Sampler:
    return Sampler.load(files, (), SampleSettings(duration_sec=0.4, precision="fp32", temperature=0.0))


def test_a_mix_is_the_mean_of_places():
    encoder, model = StyleEncoder(StandInStyle()), StandInStyle()
    entries = encoder.encode(TEXTS)
    places = model.embed_texts(TEXTS)
    mixed = encoder.mix(entries, [0.7, 0.3])
    assert mixed is not None and mixed.shape == (1, 12)
    np.testing.assert_array_equal(mixed[0].numpy(), model.tokens(blend(places, [0.7, 0.3])[None])[0])
    assert all((mixed != entry).any() for entry in entries)
    assert encoder.mix([entries[0], torch.zeros(1, 12)], [0.5, 0.5]) is None


def test_a_recording_has_a_place_too():
    encoder = StyleEncoder(StandInStyle())
    sound = np.random.default_rng(0).standard_normal((2, 48_000)).astype(np.float32)
    style, text = encoder.encode_sound(sound, 48_000), encoder.encode(TEXTS[:1])[0]
    assert encoder.mix([style, text], [0.5, 0.5]) is not None
    with pytest.raises(UserError, match="no sound"):
        encoder.encode_sound(sound[:, :0], 48_000)


def test_what_is_played_follows_the_mixed_tokens(sampler: Sampler):
    one, other = sampler.encode(TEXTS)
    assert sampler._mix is not None
    mixed = sampler._mix([one, other], [0.7, 0.3])
    assert mixed is not None
    prompts = [PromptMix.of(TEXTS, [0.7, 0.3]), PromptMix.of(TEXTS, [1.0, 0.0]), TEXTS[1]]
    played = sampler.codes(prompts, seeds=[1, 1, 1])
    alone = sampler.codes([mixed, one, other], seeds=[1, 1, 1])
    for ours, expected in zip(played, alone, strict=True):
        np.testing.assert_array_equal(ours, expected)
    assert (played[0] != played[1]).any() and (played[0] != played[2]).any()


def test_a_fade_passes_through_styles_between(sampler: Sampler):
    fading = PromptMix.of(TEXTS[:1], [1.0]).moved(TEXTS[1:], [1.0], 0.0, 0.4)
    faded = sampler.codes([fading], seeds=[1])[0]
    started, ended = (sampler.codes([text], seeds=[1])[0] for text in TEXTS)
    np.testing.assert_array_equal(faded[:, 0], started[:, 0])
    assert (faded != started).any() and (faded != ended).any()


def test_weights_stand_before_prompts():
    mix = read_prompt_mix(["0.75 calm piano", "  .25   fast drums "])
    assert list(mix.texts) == TEXTS and list(mix.after) == [0.75, 0.25]
    for wrong in (["calm piano"], ["0.5"], ["0 one", "0 two"], ["-1 one"]):
        with pytest.raises(UserError):
            read_prompt_mix(wrong)


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("songs")
    rng = np.random.default_rng(0)
    for name, audio in {"noise": 0.1 * rng.standard_normal((2, 24_000)), "silent": np.zeros((1, 24_000))}.items():
        write_audio(folder / f"{name}.wav", audio.astype(np.float32), 24_000)
    (folder / "words.wav").write_text("no sound")
    return folder


def _line(songs, *words, out="out"):
    line = ["sample", "--base", "debug-mrt2", "--duration", "0.4", "--device", "cpu", "--out", str(songs / out)]
    return [*line, *(word.replace("SONGS", str(songs)) for word in words)]


def test_a_recording_gives_its_style(songs, sampler: Sampler, capsys):
    assert main(_line(songs, "--style", "SONGS/noise.wav", out="alone")) == 0
    assert "style of noise.wav, 1.0 s\n" in capsys.readouterr().out
    assert main(_line(songs, TEXTS[0], "--style", "SONGS/noise.wav", "--style-weight", "0.3", out="beside")) == 0
    assert "at 0.3 beside the words" in " ".join(capsys.readouterr().out.split())
    assert main(_line(songs, "--mix", f"1 {TEXTS[0]}", f"3 {TEXTS[1]}", "--style", "SONGS/noise.wav", out="mix")) == 0
    assert sampler.encode_sound is not None and sampler._mix is not None
    audio = np.concatenate(list(stream(songs / "noise.wav", sample_rate_hz=16_000, channels=1)), axis=1)
    sound, one, other = sampler.encode_sound(audio, 16_000), *sampler.encode(TEXTS)
    style = PieceStyle(sound, 0.3, "")
    assert [*style.beside(TEXTS[0]).after] == pytest.approx([0.7, 0.3])
    assert [*style.beside("").after] == [1.0] and style.beside("").texts == [sound]
    assert [*style.beside(PromptMix.of(TEXTS, [1.0, 3.0])).after] == pytest.approx([0.175, 0.525, 0.3])
    expected = {"alone": sound, "beside": sampler._mix([one, sound], [0.7, 0.3])}
    expected["mix"] = sampler._mix([one, other, sound], [0.125, 0.375, 0.5])
    heard = Sampler.load(resolve_base("debug-mrt2"), (), SampleSettings(duration_sec=0.4, device="cpu"))
    for name, entry in expected.items():
        assert entry is not None
        played = next((songs / name).glob("*.wav"))
        written = np.concatenate(list(stream(played, sample_rate_hz=48_000, channels=2)), axis=1)
        np.testing.assert_allclose(written, heard.sample([entry])[0].waveform.numpy(), atol=2e-4, err_msg=name)
    assert '"weight": 0.3' in str(next((songs / "beside").glob("*.wav")).read_bytes())


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["x", "--style", "SONGS/nowhere.wav"], "is not there"),
        (["x", "--style", "SONGS/silent.wav"], "no sound to take a style from"),
        (["x", "--style", "SONGS/words.wav"], "cannot read the style"),
        (["x", "--style", "SONGS/noise.wav", "--style-weight", "1.5"], "at most 1"),
        (["x", "--style-weight", "0.5"], "--style-weight says how much"),
        (["--story", "0:00 x", "0:01 y", "--style", "SONGS/noise.wav"], "styles of its own"),
        (["x", "--style", "SONGS/noise.wav", "--base", "debug"], "takes its style from words alone"),
    ],
)
def test_a_style_that_cannot_be_followed_is_said(songs, capsys, words, why):
    assert main(_line(songs, *words)) == 2
    assert why in " ".join(capsys.readouterr().err.split())
