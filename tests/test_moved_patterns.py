"""A base moved to another codebook pattern: by name, in training, on disk and while playing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from decode_fixtures import CPU, generate, piece
from torch.testing import assert_close
from training_fixtures import quick, write_dataset

from adapters import adapter_files
from adapters.conditions import batch_conditions
from adapters.decode.engine import Packing
from adapters.decode.generation import WindowPlan
from adapters.decode.sampling import Knobs, Sampling
from adapters.decode.tape import Layout, Tape
from adapters.decode.whole_sequence import WholeSequence
from adapters.family.load import load_lm
from adapters.family.port import family_named
from adapters.fit import check_fit
from adapters.low_rank import LowRank
from adapters.merge import merge
from adapters.moved import moved_files
from adapters.pattern import Delays
from adapters.pattern_coarse_first import CoarseFirst
from adapters.pattern_flattened import Flattened
from adapters.pattern_names import pattern_named, pattern_of
from adapters.sampler import AdapterSpec, Sampler
from configs.errors import UserError
from configs.pattern_names import PATTERNS
from configs.sample import SampleSettings
from data_prep.base_files import BaseFiles, resolve_base
from data_prep.move import Move
from data_prep.pattern_choice import PatternChoice
from data_prep.text_encoders.port import load_text_encoder
from finetune import cli
from finetune.judge.teacher import Heard, Teacher
from finetune.run_log import read_log
from finetune.train import train

FRAMES = 26
OTHERS = [name for name in PATTERNS if name != "delay"]


def choice(name: Any, span: int = FRAMES) -> PatternChoice:
    return PatternChoice(name, span if name == "coarse_first" else 0)


def moved(base: Any, name: str, span: int = FRAMES) -> BaseFiles:
    return resolve_base(str(base)).moved(Move(choice(name, span)))


@pytest.mark.parametrize("K, channels", [(4, 1), (8, 2), (9, 1)])
def test_names_and_step_counts_are_those_of_the_patterns(K: int, channels: int) -> None:
    late = tuple(int(k >= channels) for k in range(K))
    wanted = {
        "parallel": Delays((0,) * K),
        "partial_delay": Delays(late),
        "delay": Delays(tuple(k // channels for k in range(K))),
        "coarse_first": CoarseFirst((0,) * (K - channels), channels, FRAMES),
        "partial_flattening": Flattened(late),
        "flattening": Flattened(tuple(range(K))),
    }
    for name in PATTERNS:
        pattern = pattern_named(choice(name), K, channels)
        assert pattern == wanted[name]
        for T in (1, 7, FRAMES):
            assert choice(name).steps(T, K, channels) == pattern.n_steps(T) - 1, name
    wrong: Any
    for wrong in (("delay", 3), ("coarse_first", 0), ("coarse_first", -1)):
        with pytest.raises(ValueError):
            PatternChoice(*wrong)


def test_with_a_span_the_fine_codes_keep_their_distance() -> None:
    pattern, codes = CoarseFirst((0, 0), span=5), torch.arange(9).view(1, 3, 3)
    (sequence,) = pattern.build(codes, 9)
    shown = ["".join("." if cell == 9 else str(cell) for cell in row) for row in sequence.tolist()]
    assert shown == [".012.....", "......345", "......678"]
    assert_close(pattern.revert(pattern.build(codes, 9)), codes)
    assert pattern.n_frames(pattern.n_steps(3)) == 3
    with pytest.raises(ValueError, match="cannot arrange 6"):
        pattern.n_steps(6)


def test_the_description_says_positions_for_a_whole_window(mono_base: Path) -> None:
    own = resolve_base(str(mono_base))
    spec = moved(mono_base, "flattening").spec
    assert spec.positions >= 4 * round(own.spec.window_sec * spec.frame_rate) and own.spec.pattern is None
    assert pattern_of(spec) == Flattened.fully(4) and pattern_of(own.spec) == Delays((0, 1, 2, 3))
    assert not own.moved(Move(choice("delay"))).move and moved(mono_base, "flattening").own == own
    with pytest.raises(UserError, match="cannot be moved to another pattern"):
        resolve_base("debug-mrt2").moved(Move(choice("flattening")))


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("base", ["mono_base", "stereo_base"])
def test_the_fast_engine_plays_what_the_slow_one_plays(name: str, base: str, request: pytest.FixtureRequest) -> None:
    """Token for token: a prompt, pieces longer than the window, guidance, several rows at once."""
    files = moved(request.getfixturevalue(base), name)
    lm = load_lm(files)
    K = lm.n_codebooks
    known = torch.randint(lm.card, (K, 9), generator=torch.Generator().manual_seed(3))
    texts = [torch.randn(3 + n, lm.spec.text_width, generator=torch.Generator().manual_seed(n)) for n in range(2)]
    pieces = [piece(texts[0], 40, 1), piece(texts[1], 40, 2, known)]
    plan, sampling = WindowPlan(FRAMES, 10, lm.spec.frame_rate), Sampling(3.0, 1.0, 20)
    slow = generate(WholeSequence(lm), pieces, sampling, plan)
    engine = family_named("musicgen").pack(lm, Packing("plain", CPU, torch.float32))
    fast = generate(engine, pieces, sampling, plan)
    for one, other in zip(slow, fast, strict=True):
        assert one.shape == (K, 40) and one.min() >= 0 and one.max() < lm.card
        assert torch.equal(one, other.cpu())
    assert torch.equal(slow[1][:, :9], known)
    alone = generate(engine, pieces[:1], sampling, plan, at_once=3)
    assert torch.equal(alone[0].cpu(), slow[0])  # no piece depends on its company, or on how it is asked for


@pytest.mark.parametrize("name", ["flattening", "coarse_first"])
def test_behind_a_melody_s_prefix_too(name: str) -> None:
    files = resolve_base("debug-melody").moved(Move(choice(name)))
    lm = load_lm(files)
    text = torch.randn(4, lm.spec.text_width, generator=torch.Generator().manual_seed(0))
    plan, sampling = WindowPlan(FRAMES, 10, lm.spec.frame_rate), Sampling(3.0, 1.0, 20)
    slow = generate(WholeSequence(lm), [piece(text, 33, 1)], sampling, plan)[0]
    engine = family_named("musicgen_melody").pack(lm, Packing("plain", CPU, torch.float32))
    assert torch.equal(generate(engine, [piece(text, 33, 1)], sampling, plan)[0], slow)


def test_evaluation_compares_with_the_base_in_its_own_pattern(mono_base: Path) -> None:
    """Losses are those of the engines; the divergence is that of logits frame by frame, whatever their order."""
    files = moved(mono_base, "flattening")
    teacher, text = Teacher(files, "cpu"), "slow piano"
    codes = torch.randint(64, (4, 11), generator=torch.Generator().manual_seed(2))
    heard = Heard(codes.numpy().astype(np.int16), text)
    fc1: Any = load_lm(files).get_submodule("decoder.model.decoder.layers.0.fc1")
    rows, width = fc1.weight.shape
    zero = LowRank(torch.zeros(1, width), torch.zeros(rows, 1), 1.0)
    nothing = {"decoder.model.decoder.layers.0.fc1": zero}
    own = Teacher(files.own, "cpu")
    assert teacher.losses([heard])[0] == pytest.approx(own.losses([heard])[0], abs=1e-6)
    states = load_text_encoder(files).encode([text])[0]
    conditions = batch_conditions([{"text": states}], files.spec)
    expected = WholeSequence(load_lm(files)).log_likelihoods(codes, conditions)
    assert teacher.losses([heard], nothing)[0] == pytest.approx(-float(expected.mean()), abs=1e-5)
    logits = [side.by_frame(heard).log_softmax(-1) for side in (teacher.base, teacher.adapted)]
    chosen = logits[1][0].gather(-1, codes[..., None]).squeeze(-1)
    assert_close(chosen.detach(), expected, rtol=0, atol=1e-5)
    kl = (logits[0].exp() * (logits[0] - logits[1])).sum(-1).mean()
    assert teacher.divergence([heard], nothing)[0] == pytest.approx(float(kl), rel=1e-4) and float(kl) > 0
    assert own.divergence([heard], nothing)[0] == 0


@pytest.mark.parametrize("name", PATTERNS)
def test_frames_count_as_known_when_their_last_code_is(name: str) -> None:
    pattern = pattern_named(choice(name), 4, 1)
    layout = Layout([torch.zeros(4, 5, dtype=torch.long)], [12], [0])
    knobs = Knobs(Sampling(), 4, 64, CPU)
    tape = Tape(pattern, 64, knobs, [0], layout, CPU)
    last = pattern.step_of_frame(12).amax(0)
    for at in range(tape.n_columns):
        assert tape.frames_known(at) == int((last <= at).sum())
    for n in range(1, 15):
        assert tape.frames_known(tape.columns_for(n)) == min(n, 12) and tape.columns_for(n) < tape.n_columns
        assert tape.frames_known(tape.columns_for(n) - 1) < min(n, 12)
    assert tape.frames_given == 5  # the music goes on behind what was given


@pytest.mark.usefixtures("fresh_processes")
@pytest.mark.parametrize("name", ["flattening", "coarse_first"])
def test_train_moves_the_base_and_everything_follows(
    name: str, mono_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_dataset(tmp_path / "data", mono_base, train=(20, 26, 12), validation=(18,))
    run = tmp_path / "run"
    adapter = train(data, run, quick(steps=8, pattern=name, checkpointing=True))
    steps = [line for line in read_log(run / "log.jsonl") if line["kind"] == "step"]
    assert steps[-1]["loss"] < steps[0]["loss"] and len(steps[0]["codebooks"]) == 4
    proof = next(line for line in read_log(run / "log.jsonl") if line["kind"] == "proof")
    assert proof["fresh_difference"] < 1e-4
    told = json.loads((adapter / "woodshed.json").read_text())
    assert told["schema_version"] == 3 and told["moved"]["pattern"]["name"] == name
    assert told["moved"]["pattern"]["span_frames"] == (26 if name == "coarse_first" else 0)
    assert not (adapter / "conditions.safetensors").exists()
    loaded = adapter_files.load(adapter)
    files = resolve_base(str(mono_base))
    assert check_fit(loaded, files) == []

    settings = SampleSettings(duration_sec=0.4, temperature=0.0, guidance=1.0)
    sampler = Sampler.load(files, [AdapterSpec(adapter)], settings)
    assert sampler.engine.pattern == pattern_named(choice(name), 4, 1)
    take = sampler.sample(["slow piano"])[0]
    with sampler.stream("slow piano") as music:
        streamed = torch.cat(list(music), dim=1)
    assert take.codes.shape == (4, 20)
    assert_close(streamed, take.waveform, rtol=1e-4, atol=1e-5)
    own = Sampler.load(moved_files(files, [loaded]), [], settings)  # the base alone keeps its own pattern
    assert own.engine.pattern == Delays((0, 1, 2, 3))
    with pytest.raises(UserError, match=f"plays in the pattern {name} and cannot be merged"):
        merge(files, [(loaded, 1.0)], tmp_path / "merged")
    assert "PeftModel" not in capsys.readouterr().err


@pytest.mark.usefixtures("fresh_processes")
def test_a_run_goes_on_in_its_pattern(mono_base: Path, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", mono_base, train=(20, 26), validation=())
    settings = quick(steps=4, pattern="partial_flattening")
    whole = adapter_files.load(train(data, tmp_path / "whole", settings))
    half = tmp_path / "half"
    train(data, half, settings.model_copy(update={"steps": 2}))
    with pytest.raises(UserError, match="pattern: partial_flattening → parallel"):
        train(data, half, quick(pattern="parallel"), resume=True)
    again = adapter_files.load(train(data, half, quick(steps=4), resume=True))
    assert again.woodshed is not None and again.woodshed.moved is not None
    assert whole.updates.keys() == again.updates.keys()


def test_what_does_not_go_together_is_one_sentence(mono_base: Path, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", mono_base, train=(20,), validation=())
    with pytest.raises(UserError, match="has never known this pattern"):
        train(data, tmp_path / "run", quick(pattern="parallel", prior_share=0.5))
    assert cli.main(["train", str(data), str(tmp_path / "other"), "--pattern", "zigzag"]) == 2
    with pytest.raises(UserError, match="would change nothing"):
        Sampler.load(resolve_base(str(mono_base)), [], SampleSettings(text_encoder="some/where"))
