"""Another codec under a base: tables and heads of its codes learn whole, and everything else follows its numbers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from codec_models import DAC_44, SMALL_DAC, write_codec
from training_fixtures import quick, write_dataset

from adapters import adapter_files
from adapters.decode.whole_sequence import WholeSequence
from adapters.family.load import load_lm
from adapters.fit import check_fit
from adapters.merge import merge
from adapters.sampler import AdapterSpec, Sampler
from configs.errors import UserError
from configs.sample import SampleSettings
from data_prep.base_files import resolve_base
from data_prep.codec.registry import load_base_codec
from data_prep.codec.resolve import choose
from data_prep.move import CODES, Move
from data_prep.prepared import PreparedDataset
from data_prep.write_audio import write_audio
from finetune import cli
from finetune.judge.subject import open_subject
from finetune.run_log import read_log
from finetune.train import train

SIZES = {"dac": ("Dac", DAC_44 | SMALL_DAC | {"n_codebooks": 5, "codebook_size": 32})}
QUIET = SampleSettings(duration_sec=0.4, temperature=0.0, guidance=1.0)


@pytest.fixture(scope="module")
def dac(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("codecs") / "dac"
    write_codec(folder, "dac", SIZES)
    return folder


def test_the_description_follows_the_codec(mono_base: Path, stereo_base: Path, dac: Path) -> None:
    own = resolve_base(str(mono_base))
    files = own.moved(Move(codec=choose(str(dac), 1)))
    spec = files.spec
    assert (spec.n_codebooks, spec.card, spec.codec, spec.channels) == (5, 32, "dac", 1)
    assert spec.frame_rate == 44_100 / 512 and spec.lags == (0, 1, 2, 3, 4) and spec.learns_whole == (CODES,)
    assert load_base_codec(files).spec.card == 32 and files.own.spec == own.spec
    lm: Any = load_lm(files)
    decoder = lm.decoder
    assert [tuple(t.weight.shape) for t in decoder.model.decoder.embed_tokens] == [(33, spec.hidden)] * 5
    assert [tuple(h.weight.shape) for h in decoder.lm_heads] == [(32, spec.hidden)] * 5
    stereo = resolve_base(str(stereo_base)).moved(Move(codec=choose(str(dac), 2))).spec
    assert stereo.n_codebooks == 10 and stereo.lags == (0, 0, 1, 1, 2, 2, 3, 3, 4, 4)


@pytest.mark.usefixtures("prep_in_this_process")
def test_songs_become_a_dataset_of_the_other_codec_and_an_adapter(
    mono_base: Path, dac: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    time_sec = np.arange(6 * 22_050) / 22_050
    for name, hz in (("a", 220.0), ("b", 330.0)):
        audio = 0.3 * np.sin(2 * np.pi * hz * time_sec)[None].astype(np.float32)
        write_audio(tmp_path / "songs" / f"{name}.wav", audio, 22_050)
    data = tmp_path / "data"
    words = ["prep", str(tmp_path / "songs"), str(data), "--base", str(mono_base), "--codec", str(dac)]
    assert cli.main([*words, "--workers", "1", "--captions.sources", "features"]) == 0
    dataset = PreparedDataset(data)
    assert dataset.info["codec"]["kind"] == "dac" and dataset.info["codec"]["id"] == str(dac)
    row = dataset.clips()[0]
    assert dataset.codes(row.id).shape == (5, row.n_frames) and row.n_frames == pytest.approx(6 * 86.13, abs=2)
    assert cli.main(["prep", str(tmp_path / "songs"), str(tmp_path / "no"), "--codec", "no/such"]) == 2


@pytest.mark.usefixtures("fresh_processes")
@pytest.mark.parametrize("precision, pattern", [("fp32", None), ("bf16", "partial_flattening")])
def test_trained_saved_and_played(
    precision: str, pattern: str | None, mono_base: Path, dac: Path, tmp_path: Path
) -> None:
    """With another pattern on top, too."""
    move = Move(codec=choose(str(dac), 1))
    data = write_dataset(tmp_path / "data", mono_base, train=(20, 26, 12), validation=(18,), move=move)
    run = tmp_path / "run"
    adapter = train(data, run, quick(steps=10, precision=precision, pattern=pattern, checkpointing=True))
    log = read_log(run / "log.jsonl")
    steps = [line for line in log if line["kind"] == "step"]
    assert steps[-1]["loss"] < steps[0]["loss"] - 0.1 and len(steps[0]["codebooks"]) == 5
    proof = next(line for line in log if line["kind"] == "proof")
    assert proof["fresh_difference"] < (1e-4 if precision == "fp32" else 5e-2)
    told = json.loads((adapter / "woodshed.json").read_text())
    assert told["moved"]["codec"]["n_codebooks"] == 5 and told["codec"]["sample_rate_hz"] == 44_100
    assert told["base"]["n_codebooks"] == 4  # the base is described as it was published
    loaded, files = adapter_files.load(adapter), resolve_base(str(mono_base))
    assert len(loaded.whole) == 10 and check_fit(loaded, files) == []
    sampler = Sampler.load(files, [AdapterSpec(adapter)], QUIET)
    take = sampler.sample(["slow piano"])[0]
    assert take.codes.shape == (5, round(0.4 * 44_100 / 512)) and take.codes.max() < 32
    assert sampler.codec is not None and take.waveform.shape[1] == take.codes.shape[1] * 512
    lm = load_lm(files.moved(sampler_move(loaded, dac)), whole=loaded.whole)
    assert WholeSequence(lm).pattern == sampler.engine.pattern
    with pytest.raises(UserError, match="cannot be merged"):
        merge(files, [(loaded, 1.0)], tmp_path / "merged")
    with pytest.raises(UserError, match="another codec cannot be compared"):
        open_subject(adapter)


def sampler_move(adapter: Any, dac: Path) -> Move:
    from adapters.moved import move_of

    return move_of(adapter.woodshed, codec=str(dac))


@pytest.mark.usefixtures("fresh_processes")
def test_damaged_or_foreign_weights_are_refused(mono_base: Path, dac: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    move = Move(codec=choose(str(dac), 1))
    data = write_dataset(tmp_path / "data", mono_base, train=(20,), validation=(), move=move)
    adapter = train(data, tmp_path / "run", quick(steps=2))
    path = adapter / "conditions.safetensors"
    held = load_file(path)
    name = "whole.decoder.lm_heads.3.weight"
    for changed, words in (
        ({n: t for n, t in held.items() if n != name}, "is missing"),
        ({**held, "whole.decoder.lm_heads.9.weight": held[name].clone()}, "not part of any condition"),
        ({**held, name: held[name][:-1].contiguous()}, "has the shape"),
        ({**held, name: torch.full_like(held[name], torch.nan)}, "NaN or infinity"),
    ):
        save_file(changed, path)
        with pytest.raises(UserError, match=words):
            adapter_files.load(adapter)
    path.unlink()
    with pytest.raises(UserError, match="with the codec dac"):
        adapter_files.load(adapter)
