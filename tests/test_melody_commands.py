"""A melody base from songs to sound: prep, train, sample, merge and the rest, through the command line."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.errors import UserError
from data_prep.base_files import resolve_base
from data_prep.prepared import PreparedDataset
from data_prep.write_audio import write_audio
from finetune.cli import main
from finetune.dataset_fit import check_fit
from finetune.train import condition_facts
from tests.test_chroma import line

RATE_HZ = 32_000
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.usefixtures("prep_in_this_process"),
]


@pytest.fixture(scope="module")
def songs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("songs")
    noise = 0.2 * torch.randn(1, 3 * RATE_HZ, generator=torch.Generator().manual_seed(0))
    for number in range(3):
        audio = 0.3 * line(number, 3.0)[None] + 0.01 * noise
        write_audio(folder / f"{number}.wav", audio.numpy(), RATE_HZ)
        (folder / f"{number}.txt").write_text(f"song {number}")
    write_audio(folder / "noise.wav", noise.numpy(), RATE_HZ)
    return folder


@pytest.fixture(scope="module")
def data(songs: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("data") / "d"
    words = ["--base", "debug-melody", "--melody", "mix", "--device", "cpu", "--segment.max_sec", "2"]
    assert main(["prep", str(songs), str(out), *words, "--segment.min_sec", "0.9", "--workers", "1"]) == 0
    return out


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "r"
    targets = ["--lora.targets", "[attention,ffn,text_projection,melody_projection]", "--lora.rank", "4"]
    quick = ["--steps", "3", "--batch_size", "2", "--accumulation", "1", "--device", "cpu", "--max_clip_sec", "1"]
    quick += ["--preview.every_steps", "0"]
    assert main(["train", str(data), str(out), *targets, *quick, "--lr", "0.02"]) == 0
    return out / "adapter"


def test_train_says_how_many_clips_have_a_melody(data: Path) -> None:
    dataset, spec = PreparedDataset(data), resolve_base("debug-melody").spec
    n_train = len(dataset.clips("train"))
    said = condition_facts(spec, dataset)["melody"]
    assert said.endswith(f"of {n_train} clips have one") and not said.startswith("0")
    dataset._conditions = {}
    assert "may unlearn" in condition_facts(spec, dataset)["melody"]


def test_a_dataset_with_another_chroma_does_not_fit(data: Path) -> None:
    dataset = PreparedDataset(data)
    check_fit(dataset, resolve_base("debug-melody"))
    dataset.info["conditions"]["melody"]["made_with"]["n_fft"] = 16
    with pytest.raises(UserError, match="how melody was made"):
        check_fit(dataset, resolve_base("debug-melody"))


def test_prep_keeps_melodies_beside_the_tokens(data: Path) -> None:
    dataset = PreparedDataset(data)
    said = dataset.info["conditions"]["melody"]
    assert said["from"] == "mix" and said["width"] == 12 and said["rate_hz"] == 7.8125
    with_melody = 0
    for row in dataset.clips():
        values = dataset.condition("melody", row.id)
        if row.source == "noise.wav":
            assert values is None
            continue
        assert values is not None and values.dtype == np.float32
        assert values.shape == (1 + int(row.duration_sec * RATE_HZ) // 4096, 12)
        np.testing.assert_array_equal(values.sum(1), 1)
        with_melody += 1
    assert with_melody == said["clips"] > 3


def test_prep_again_changes_nothing_and_none_leaves_melodies_out(songs: Path, data: Path, tmp_path: Path) -> None:
    out = shutil.copytree(data, tmp_path / "d")
    before = PreparedDataset(out)
    words = ["--base", "debug-melody", "--device", "cpu", "--segment.max_sec", "2", "--segment.min_sec", "0.9"]
    assert main(["prep", str(songs), str(out), *words, "--workers", "1", "--melody", "none"]) == 0
    after = PreparedDataset(out)
    assert "conditions" not in after.info and not (out / "conditions").exists()
    assert before.learned_content() != after.learned_content()


def test_a_condition_is_refused_where_no_adapter_can_add_it(songs: Path, tmp_path: Path, capsys) -> None:
    assert main(["prep", str(songs), str(tmp_path / "d"), "--base", "debug-melody", "--beat", "mix"]) == 2
    assert "does not follow beat" in capsys.readouterr().err


def test_plain_peft_loads_the_adapter_with_equal_logits(run: Path) -> None:
    from peft import PeftModel

    from adapters.adapter_files import load
    from adapters.conditions import batch_conditions
    from adapters.decode.engine import Packing
    from adapters.decode.whole_sequence import WholeSequence
    from adapters.family.load import load_lm
    from tests.melody_fixtures import a_melody, states_of, token_ids, whole_model

    files = resolve_base("debug-melody")
    whole, ids, melody = whole_model(files), token_ids(5), a_melody(235)
    states = states_of(whole, ids)
    theirs = PeftModel.from_pretrained(whole, str(run)).eval()
    updates = {"mine": load(run).updates}
    assert any("audio_enc_to_dec_proj" in name for name in updates["mine"])
    merged = WholeSequence.pack(
        load_lm(files), Packing("plain", torch.device("cpu"), torch.float32, updates, {"mine": 1.0})
    ).lm
    codes = torch.randint(0, files.spec.card, (1, 4, 8), generator=torch.Generator().manual_seed(0))
    inputs, _ = merged.inputs_and_labels(codes, torch.tensor([8]))
    with torch.no_grad():
        expected = theirs(
            input_ids=ids[None],
            attention_mask=torch.ones(1, 5, dtype=torch.long),
            input_features=melody[None],
            decoder_input_ids=inputs[0],
        ).logits[:, -inputs.shape[2] :]
        conditions = batch_conditions([{"text": states, "melody": melody}], files.spec)
        found = merged(inputs, conditions)[0]
        bare = load_lm(files)(inputs, conditions)[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (found - bare).abs().max() > 1e-3


def test_sample_follows_a_melody(run: Path, songs: Path, tmp_path: Path, capsys) -> None:
    words = [str(run), "a song", "--melody", str(songs / "0.wav"), "--from", "0.5", "--out", str(tmp_path)]
    assert main(["sample", *words, "--duration", "1", "--device", "cpu", "--guidance", "2"]) == 0
    said = capsys.readouterr().out
    assert "2.5 s of 0.wav from 0.5 s on" in said and "% of the moments agree; with the melody shuffled" in said
    assert len(list(tmp_path.glob("*.wav"))) == 1


def test_sample_without_text_longer_than_a_window_and_continued(songs: Path, tmp_path: Path, capsys) -> None:
    words = ["--base", "debug-melody", "--melody", str(songs / "1.wav"), "--continue", str(songs / "0.wav")]
    long = ["--duration", "4", "--window_sec", "1.5", "--overlap_sec", "0.5", "--device", "cpu"]
    assert main(["sample", *words, *long, "--out", str(tmp_path)]) == 0
    assert "it begins again" in capsys.readouterr().out
    assert len(list(tmp_path.glob("*.wav"))) == 1


@pytest.mark.skipif(os.name != "posix", reason="the player is a shell script")
def test_sample_streams_with_a_melody(songs: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    player = tmp_path / "bin" / "ffplay"
    player.parent.mkdir()
    player.write_text("#!/bin/sh\ncat > heard.wav\n")
    player.chmod(0o755)
    monkeypatch.setenv("PATH", f"{player.parent}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    words = ["--base", "debug-melody", "calm", "--melody", str(songs / "1.wav"), "--play"]
    assert main(["sample", *words, "--duration", "1", "--device", "cpu"]) == 0
    assert len((tmp_path / "heard.wav").read_bytes()) > 2 * RATE_HZ
    assert "% of the moments agree" in capsys.readouterr().out


def test_sample_says_what_cannot_be_followed(songs: Path, tmp_path: Path, capsys) -> None:
    out = ["--out", str(tmp_path), "--device", "cpu", "--duration", "1"]
    assert main(["sample", "--base", "debug-melody", "x", "--melody", str(songs / "noise.wav"), *out]) == 2
    assert "there is no melody in noise.wav" in capsys.readouterr().err
    assert main(["sample", "--base", "debug", "x", "--melody", str(songs / "0.wav"), *out]) == 2
    assert "nothing here follows a melody" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["merge", "inspect", "blend", "bundle"])
def test_the_adapters_commands(run: Path, tmp_path: Path, command: str) -> None:
    words = {
        "merge": [str(run), str(tmp_path / "m"), "--base", "debug-melody"],
        "inspect": [str(run), "--base", "debug-melody"],
        "blend": [str(run), str(run), "--out", str(tmp_path / "b")],
        "bundle": [str(run), str(tmp_path / "b.zip")],
    }[command]
    assert main([command, *words]) == 0
    if command == "merge":
        from transformers import MusicgenMelodyForConditionalGeneration

        merged = MusicgenMelodyForConditionalGeneration.from_pretrained(tmp_path / "m")
        assert merged.config.num_chroma == 12
