"""Magenta RealTime 2 through the whole product: prep, training, sampling, streaming, merging, the shared files."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from mrt2_fixtures import magenta_lm, write_case
from safetensors.torch import load_file
from torch.testing import assert_close
from training_fixtures import quick, write_dataset

from adapters import adapter_files
from adapters.conditions import Conditions, batch_conditions
from adapters.decode.engine import Blend, Packing
from adapters.decode.generation import Generation, Request, WindowPlan
from adapters.decode.prompt_schedule import PromptSchedule
from adapters.decode.sampling import Sampling
from adapters.decode.strength_schedule import StrengthSchedule
from adapters.decode.whole_sequence import WholeSequence
from adapters.family.load import load_lm
from adapters.family.magenta_rt2.conditions import MagentaConditions, strength_bins
from adapters.family.magenta_rt2.engine import MagentaEngine
from adapters.family.magenta_rt2.family import FAMILY
from adapters.family.magenta_rt2.format import FORMAT
from adapters.family.magenta_rt2.lm import MagentaLM
from adapters.family.magenta_rt2.spec import GROUPS
from adapters.merge import merge
from adapters.sampler import AdapterSpec, Sampler
from configs.errors import UserError
from configs.prep import PrepSettings
from configs.sample import SampleSettings
from data_prep.base_files import BaseFiles, resolve_base
from data_prep.codec.registry import load_base_codec
from data_prep.prepare import prepare
from data_prep.prepared import PreparedDataset
from finetune.batches import Draw, collate
from finetune.train import train

CPU = torch.device("cpu")
SETTINGS = {
    "lora": {"rank": 4, "targets": ["temporal_attention", "cross_attention", "ffn", "depth", "heads"]},
    "optim": {"lr": 0.01, "schedule": "constant", "warmup_steps": 0},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> BaseFiles:
    return resolve_base(str(write_case("tiny", tmp_path_factory.mktemp("mrt2") / "base")))


@pytest.fixture(scope="module")
def lm(files: BaseFiles) -> MagentaLM:
    found = load_lm(files)
    assert isinstance(found, MagentaLM)
    return found


@pytest.fixture(scope="module")
def data(files: BaseFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "set", files.folder, train=(30, 24), validation=(20,))


@pytest.fixture(scope="module")
def adapter(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(data, tmp_path_factory.mktemp("runs") / "run", quick(**SETTINGS, steps=4))


def test_the_base_is_what_its_own_reader_says(files: BaseFiles, lm: MagentaLM) -> None:
    assert files.format is FORMAT and files.spec.frame_rate == 25 and files.spec.channels == 2
    stored, own = FAMILY.stored(files), lm.state_dict()
    assert dict(stored.shapes) == {name: tuple(tensor.shape) for name, tensor in own.items()}
    for name, tensor in own.items():
        assert torch.equal(tensor, stored[name]) and stored[name].is_contiguous()
    assert load_base_codec(files).n_codebooks == 12
    one = resolve_base(str(files.folder / "checkpoints" / "mrt2_debug.safetensors"))
    assert replace(one.spec, conditions=()) == replace(files.spec, conditions=()) and one.format is FORMAT
    with pytest.raises(UserError, match="2 checkpoints"):
        folder = files.folder.parent / "two"
        (folder / "checkpoints").mkdir(parents=True)
        for name in ("mrt2_small", "mrt2_base"):
            (folder / "checkpoints" / f"{name}.safetensors").write_bytes(b"{}")
        resolve_base(str(folder))


def test_one_size_is_fetched_from_the_hub() -> None:
    small, base = FORMAT.on_hub("google/magenta-realtime-2"), FORMAT.on_hub("google/magenta-realtime-2/mrt2_base")
    assert small is not None and base is not None and FORMAT.on_hub("facebook/musicgen-small") is None
    assert small.inside == "checkpoints/mrt2_small.safetensors" and base.inside == "checkpoints/mrt2_base.safetensors"
    assert base.repository == small.repository and base.inside not in small.patterns


def requests(n_frames: tuple[int, ...], known: tuple[int, ...] | None = None, **also: Any) -> list[Request]:
    draw = torch.Generator().manual_seed(3)
    known = known or (0,) * len(n_frames)
    texts = [torch.randint(0, 1024, (1, 12), generator=draw) for _ in n_frames]
    begun = [torch.randint(0, 64, (12, count), generator=draw) for count in known]
    return [
        Request(PromptSchedule.of(text), n, seed, codes if codes.shape[1] else None, also)
        for seed, (text, n, codes) in enumerate(zip(texts, n_frames, begun, strict=True))
    ]


def played(engine: Any, wanted: list[Request], guidance: float, window: int = 64) -> list[torch.Tensor]:
    plan = WindowPlan(window, window // 3, 25.0)
    generation = Generation(engine, wanted, Sampling(guidance, 1.2, 20), plan)
    while not generation.done:
        generation.advance(7)
    return generation.codes()


def test_it_plays_what_the_whole_sequence_plays(lm: MagentaLM) -> None:
    """Rows of different lengths, with and without a beginning; strengths given, so that guidance 1 means the same."""
    draw = torch.Generator().manual_seed(5)
    notes = torch.randint(-1, 4, (13, 128), generator=draw)
    wanted = requests((13, 9, 11), (0, 3, 6), notes=notes, strengths=torch.tensor([strength_bins(2.0)]))
    slow, fast = played(WholeSequence(lm), wanted, 1.0), played(MagentaEngine(lm), wanted, 1.0)
    for one, other in zip(slow, fast, strict=True):
        assert torch.equal(one, other)


def test_guidance_is_the_strength_of_style(lm: MagentaLM) -> None:
    given = requests((8, 8), strengths=torch.tensor([strength_bins(2.0)]))
    slow = played(WholeSequence(lm), given, 1.0)
    fast = played(MagentaEngine(lm), requests((8, 8)), 3.0)
    assert all(torch.equal(one, other) for one, other in zip(slow, fast, strict=True))
    told = MagentaEngine(lm).encode(batch_conditions([{}], lm.spec))
    assert torch.equal(told.guided(6.0).strengths[0, 0], torch.tensor(strength_bins(5.0)))


def test_windows_are_only_tape(lm: MagentaLM) -> None:
    """A piece of several windows is the piece in one: nothing is forgotten at an edge, and nothing read again."""
    whole = played(MagentaEngine(lm), requests((31, 20)), 3.0, window=40)
    for one, other in zip(played(MagentaEngine(lm), requests((31, 20)), 3.0, window=12), whole, strict=True):
        assert torch.equal(one, other)


def test_of_two_texts_the_larger_share_is_followed(lm: MagentaLM) -> None:
    engine = MagentaEngine(lm)
    draw = torch.Generator().manual_seed(1)
    rows = [[{"text": torch.randint(0, 1024, (1, 12), generator=draw)} for _ in range(2)] for _ in range(2)]
    parts = [engine.encode(batch_conditions(row, lm.spec)) for row in rows]
    wanted = requests((9, 9))
    generation = Generation(engine, wanted, Sampling(1.0, 0.0), WindowPlan(20, 5, 25.0))
    generation.advance(1)
    assert generation.steps is not None
    generation.steps.follow(Blend(parts, torch.tensor([[[0.6], [0.3]], [[0.4], [0.7]]])))
    told: Any = generation.steps
    assert torch.equal(told.told.conditions.style[0], parts[0].conditions.style[0])
    assert torch.equal(told.told.conditions.style[1], parts[1].conditions.style[1])


def test_likelihoods(lm: MagentaLM) -> None:
    codes = torch.randint(0, 64, (12, 9), generator=torch.Generator().manual_seed(2))
    conditions = batch_conditions([{"strengths": torch.tensor([strength_bins(0.0)])}], lm.spec)
    assert_close(
        MagentaEngine(lm).log_likelihoods(codes, conditions), WholeSequence(lm).log_likelihoods(codes, conditions)
    )


def test_a_crop_knows_the_frame_before_it(data: Path, lm: MagentaLM) -> None:
    dataset = PreparedDataset(data)
    row = dataset.clips("train")[0]
    batch = collate([Draw(row.id, row.captions[0], 5, 10), Draw(row.id, None, 0, 10)], dataset, lm.spec)
    inputs, _ = lm.inputs_and_labels(batch.codes, batch.n_frames)
    logits = lm(inputs, batch.conditions)
    codes = torch.from_numpy(dataset.codes(row.id).astype(np.int64))
    text = batch_conditions([{"text": torch.from_numpy(dataset.text_state(row.captions[0]).copy())}], lm.spec)
    assert_close(logits[:1], lm(codes[None, :, 5:15], text, previous=codes[None, :, 4]))
    assert_close(logits[1:], lm(codes[None, :, :10], Conditions.null(1, lm.spec)))


def test_training_leaves_an_adapter_of_its_modules(adapter: Path) -> None:
    loaded = adapter_files.load(adapter)
    assert {name.split(".")[0] for name in loaded.updates} == {"temporal", "depth"}
    assert loaded.woodshed is not None and loaded.woodshed.base.family == "magenta_rt2"
    card = (adapter / "README.md").read_text()
    assert "cross attention" in card and "Musicgen" not in card and "woodshed sample" in card


def test_resume_is_exact(data: Path, adapter: Path, tmp_path: Path) -> None:
    train(data, tmp_path / "run", quick(**SETTINGS, steps=2))
    resumed = train(data, tmp_path / "run", quick(**SETTINGS, steps=4), resume=True)
    one, other = (load_file(folder / "adapter_model.safetensors") for folder in (resumed, adapter))
    for name, tensor in one.items():
        assert_close(tensor, other[name], rtol=0, atol=0)


def sampler(
    base: Path | str, adapter: Path | None = None, strength: float = 1.0, *, live: bool = False, **more: Any
) -> Sampler:
    settings = SampleSettings.model_validate({"duration_sec": 1.0, "precision": "fp32", **more})
    specs = [] if adapter is None else [AdapterSpec(adapter, StrengthSchedule.constant(strength))]
    return Sampler.load(resolve_base(str(base)), specs, settings, live=live)


def test_sample_merge_and_the_official_layout(files: BaseFiles, adapter: Path, tmp_path: Path) -> None:
    player = sampler(files.folder, adapter, 8.0)
    takes = player.sample(["a tone, in the style of tests", "noise"])
    assert [take.waveform.shape for take in takes] == [(2, 48_000)] * 2
    merge(files, [(adapter_files.load(adapter), 8.0)], tmp_path / "merged")
    codes = sampler(tmp_path / "merged").codes(["a tone, in the style of tests"])[0]
    np.testing.assert_array_equal(codes, takes[0].codes)
    assert (sampler(files.folder).codes(["a tone, in the style of tests"])[0] != codes).any()
    before, after = (
        load_file(folder / "checkpoints" / "mrt2_debug.safetensors") for folder in (files.folder, tmp_path / "merged")
    )
    assert {name: tensor.shape for name, tensor in before.items()} == {n: t.shape for n, t in after.items()}
    codec = [name for name in before if "soundstream" in name]
    assert codec and all(torch.equal(before[name], after[name]) for name in codec)
    assert (tmp_path / "merged" / "resources" / "spectrostream" / "encoder.safetensors").is_file()


def test_live_adapters_are_the_merged_ones_and_can_be_turned(files: BaseFiles, adapter: Path) -> None:
    live = sampler(files.folder, adapter, 0.0, live=True)
    np.testing.assert_array_equal(live.codes(["a tone"])[0], sampler(files.folder).codes(["a tone"])[0])
    live.set_strength(next(iter(live.schedules)), 8.0)
    np.testing.assert_array_equal(live.codes(["a tone"])[0], sampler(files.folder, adapter, 8.0).codes(["a tone"])[0])


def test_stream_is_the_sampled_piece(files: BaseFiles) -> None:
    player = sampler(files.folder)
    whole = player.sample(["a tone"], seeds=[3])[0].waveform
    with player.stream("a tone", seed=3) as music:
        assert_close(torch.cat(list(music), dim=1), whole)


def test_a_clip_that_is_learnt_with_dora_comes_back(files: BaseFiles, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "one", files.folder, train=(10,), validation=())
    row = json.loads((data / "clips.jsonl").read_text())
    (data / "clips.jsonl").write_text(json.dumps(row | {"captions": row["captions"][:1]}) + "\n")  # one, for all steps
    lora = {"rank": 8, "alpha": 16.0, "dora": True, "targets": list(GROUPS)}
    learns = {"lora": lora, "optim": {**SETTINGS["optim"], "lr": 0.02}, "condition_dropout": 0.0}
    once = {"batch_size": 1, "accumulation": 1, "eval": {"every_steps": 100}, "checkpoint": {"every_steps": 100}}
    adapter = train(data, tmp_path / "run", quick(**learns, **once, steps=100))
    dataset = PreparedDataset(data)
    row = dataset.clips("train")[0]
    how: Any = {"temperature": 0.0, "guidance": 4.0, "duration_sec": 10 / 25}
    ours, bare = (sampler(files.folder, one, **how).codes([row.captions[0]])[0] for one in (adapter, None))
    shares = [float((codes == dataset.codes(row.id)).mean()) for codes in (ours, bare)]
    assert shares[0] > 0.95 and shares[1] < 0.2, "chance is one in a card"


def test_prep_from_sound_to_tokens(tmp_path: Path) -> None:
    songs = tmp_path / "songs"
    songs.mkdir()
    for number in range(2):
        time = np.arange(48_000 * 6) / 48_000
        tone = 0.3 * np.sin(2 * np.pi * 220 * (number + 1) * time) * (1 + np.sin(2 * np.pi * 3 * time)) / 2
        soundfile.write(songs / f"{number}.wav", np.stack([tone, tone * 0.5], axis=1), 48_000)
    captions: Any = {"trigger": "in the style of tests", "listeners": {"use": []}}
    settings = {"base": "debug-mrt2", "captions": captions, "workers": 1}
    prepare(songs, tmp_path / "data", PrepSettings.model_validate(settings))
    dataset = PreparedDataset(tmp_path / "data")
    assert dataset.info["text_encoder"] == {"fingerprint": "stand-in", "width": 12}
    for row in dataset.clips():
        assert dataset.codes(row.id).shape == (12, row.n_frames)
        assert dataset.text_state(row.captions[0]).shape == (1, 12)
        heard = dataset.condition("style", row.id)
        assert heard is not None and heard.shape[1] == 12 and 0 <= heard.min() <= heard.max() < 1024
        assert row.n_frames <= len(heard) <= row.n_frames + 1
    spec, row = resolve_base("debug-mrt2").spec, dataset.clips()[0]
    told, sound = (Draw(row.id, row.captions[0], 5, 20, instead=instead) for instead in (False, True))
    batch = collate([told, sound], dataset, spec)
    followed = MagentaConditions.of_kinds(batch.conditions, 2)
    words, heard = dataset.text_state(row.captions[0]), dataset.condition("style", row.id)
    assert heard is not None and (followed.style[0].numpy() == words).all()
    np.testing.assert_array_equal(followed.style[1].numpy(), heard[5:25])


def test_packed_kinds_on_a_cpu(files: BaseFiles, lm: MagentaLM) -> None:
    plain = played(MagentaEngine(lm), requests((12,)), 3.0)[0]
    packed = MagentaEngine.pack(magenta_lm(files.folder), Packing("fp32", CPU, torch.float32))
    assert torch.equal(played(packed, requests((12,)), 3.0)[0], plain)
    assert packed.bytes_per_step > 0
