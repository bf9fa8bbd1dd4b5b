"""What stands around the model on a card that is not there: codec, separator, text encoder, previews, and the card."""

import gc
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from fake_card.card import FakeCard, needs_known_torch
from safetensors.torch import save_file
from torch import Tensor

from adapters.device_memory import DeviceTooSmallError
from adapters.family.lm import LM
from adapters.family.load import load_lm
from adapters.sampler import Sampler
from configs.sample import SampleSettings
from configs.train import PreviewSettings
from data_prep.base_files import BaseFiles
from data_prep.codec import port
from data_prep.codec.registry import load_base_codec
from data_prep.debug_base import write_debug_base
from data_prep.separator import load_separator
from data_prep.text_encoder import TextEncoder
from finetune import cli, prior_pieces
from finetune.judge import play as judge_play
from finetune.judge.plan import Ask
from finetune.preview import Previews

pytestmark = needs_known_torch
CUDA = torch.device("cuda")
SHORT = SampleSettings.model_validate({"duration_sec": 0.2})
SEPARATOR = {"sources": ["drums", "bass", "other", "vocals"], "channels": 8, "growth": 1, "nfft": 512, "depth": 2}
SEPARATOR |= {"t_layers": 1, "t_heads": 2, "bottom_channels": 8, "dconv_depth": 1, "dconv_comp": 2, "samplerate": 8000}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> BaseFiles:
    return BaseFiles("debug", None, write_debug_base(tmp_path_factory.mktemp("base") / "mono", layers=1))


def test_codec(files: BaseFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """There, back, streamed and in stretches. EnCodec's own integers would make the host wait at each convolution."""
    with FakeCard() as card:
        codec = load_base_codec(files, "cuda")
        codes = codec.encode([torch.randn(1, 16_000), torch.randn(1, 9_000)])
        stream = codec.stream()
        streamed = [stream.push(codes[0][:, :15]), stream.push(codes[0][:, 15:], last=True)]
        whole = codec.decode(codes[0])
        monkeypatch.setattr(port, "WHOLE_SEC", 0.1)
        monkeypatch.setattr(port, "STRETCH_SEC", 0.3)
        in_stretches, again = codec.decode(codes[0]), codec.encode([torch.randn(1, 16_000)])
    assert [found.shape for found in codes] == [(4, 25), (4, 15)] and again[0].shape == (4, 25)
    assert whole.shape == in_stretches.shape == (1, 16_000) and sum(part.shape[1] for part in streamed) == 16_000
    assert all(part.device.type == "cpu" for part in (whole, in_stretches, *streamed))
    assert not card.ledger.waits and not card.ledger.upcasts


def test_a_codec_that_finds_no_room_goes_to_the_host_and_back(files: BaseFiles) -> None:
    """Nobody's music is lost at the very end, also where there is no room for the codec's way back."""
    with FakeCard() as card:
        codec = load_base_codec(files, "cuda")
        weights = card.ledger.live
        for room, device in ((weights + 200_000, "cuda"), (weights - 4096, "cpu")):
            card.room = room
            audio = codec.decode(np.zeros((4, 50), dtype=np.int16))
            assert audio.shape == (1, 32_000) and codec.device.type == device


def test_separator(tmp_path: Path) -> None:
    """Which models of a bag have anything to say is known without asking the card."""
    from demucs.htdemucs import HTDemucs

    arguments = {**SEPARATOR, "segment": {"_type": "fraction", "numerator": 1, "denominator": 1}}
    about = {"klass": "demucs.htdemucs.HTDemucs", "args": "[]", "kwargs": json.dumps(arguments)}
    held = {name: tensor.contiguous() for name, tensor in HTDemucs(**SEPARATOR).state_dict().items()}
    save_file(held, tmp_path / "m0.safetensors", metadata=about)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({"models": ["m0"]}))
    with FakeCard() as card:
        separator = load_separator(str(tmp_path), "cuda")
        card.ledger.clear()
        stems = separator.run(torch.randn(2, 2, 8000), frozenset({"vocals"}))
        assert stems.shape == (2, 4, 2, 8000) and stems.device.type == "cuda"
    assert card.ledger.waits.total() <= 1  # Demucs' own, once in a forward pass


def test_text_encoder(files: BaseFiles) -> None:
    with FakeCard() as card:
        encoder = TextEncoder.load(files, CUDA)
        card.ledger.clear()
        states = encoder.encode(["slow piano", "a much longer caption than that"])
    assert all(state.device.type == "cpu" and state.shape[1] == encoder.width for state in states)
    assert not card.ledger.waits


def test_previews_of_a_model_in_training(files: BaseFiles, tmp_path: Path) -> None:
    """Around the model's own modules; the codec stays on the CPU."""
    codec, states = load_base_codec(files, "cpu"), [torch.randn(4, 12), torch.randn(6, 12)]
    settings = PreviewSettings.model_validate({"duration_sec": 0.3})
    said: list[str] = []
    previews = Previews(tmp_path, ["one", "two"], states, codec, settings, said.append)
    with FakeCard() as card:
        mine = load_lm(files, weights="bf16", device="cuda")
        made = previews.make(mine, 1)
    assert len(made) == 2 and (tmp_path / made[0]).is_file(), said
    assert set(card.ledger.waits) == {"value read in tape.check"} and card.ledger.replays > 10


# ---- a card that is too small


def texts(count: int) -> list[Tensor]:
    return [torch.randn(4, 12) for _ in range(count)]


@pytest.fixture
def small_card(files: BaseFiles) -> Iterator[tuple[FakeCard, LM]]:
    """With room for two pieces of 0.2 s at once, not for four."""
    with FakeCard() as card:
        mine = load_lm(files, weights="bf16", device="cuda")
        Sampler.around(mine, SHORT).codes(texts(2))
        gc.collect()
        card.room = card.ledger.peak + 20_000
        yield card, mine


def test_sampling_goes_on_with_fewer_at_once(small_card: tuple[FakeCard, LM]) -> None:
    """Also where memory runs out while a graph is captured: that is no reason to go on without graphs."""
    card, mine = small_card
    sampler = Sampler.around(mine, SHORT)
    found = sampler.codes(texts(5))
    assert [codes.shape for codes in found] == [(4, 10)] * 5 and sampler.most_at_once in (1, 2)
    assert card.ledger.captures


def test_what_was_played_is_freed_at_once(files: BaseFiles) -> None:
    """Keys and values of a piece of medium are 864 MiB: they must not wait for Python's collector."""
    with FakeCard() as card:
        sampler = Sampler.around(load_lm(files, weights="bf16", device="cuda"), SHORT)
        sampler.codes(texts(1))
        gc.collect()
        before = card.ledger.live
        gc.disable()
        try:
            sampler.codes(texts(2))
        finally:
            gc.enable()
        assert card.ledger.live == before < card.ledger.peak


def test_previews_go_on_with_fewer_at_once(small_card: tuple[FakeCard, LM], files: BaseFiles, tmp_path: Path) -> None:
    said: list[str] = []
    settings = PreviewSettings.model_validate({"duration_sec": 0.2})
    codec = load_base_codec(files, "cpu")
    previews = Previews(tmp_path, list("abcd"), texts(4), codec, settings, said.append)
    assert len(previews.make(small_card[1], 1)) == 4, said


def test_prior_pieces_go_on_with_fewer_at_once(small_card: tuple[FakeCard, LM], files: BaseFiles) -> None:
    pieces = prior_pieces.play(small_card[1], files, [f"piano {n}" for n in range(4)], 10, 3, lambda _: None)
    assert [codes.shape for codes in pieces.codes] == [(4, 10)] * 4


def test_the_judge_goes_on_with_fewer_at_once(small_card: tuple[FakeCard, LM], files: BaseFiles) -> None:
    sampler = Sampler.around(small_card[1], SHORT, codec=load_base_codec(files, "cpu"))
    sampler.encode = lambda words: texts(len(words))
    asks = [Ask("own", f"piano {n}", n) for n in range(4)]
    assert len(judge_play.play(sampler, asks)) == 4


def test_a_stream_without_room_ends_in_words(small_card: tuple[FakeCard, LM], files: BaseFiles) -> None:
    """As `--play` and live: a single piece cannot be halved."""
    card, mine = small_card
    sampler = Sampler.around(mine, SHORT, codec=load_base_codec(files, "cpu"))
    card.room = card.ledger.live + 1000
    with pytest.raises(DeviceTooSmallError, match="even one piece"), sampler.stream(texts(1)[0]) as music:
        next(iter(music))


def test_no_memory_anywhere_is_no_bug(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def no_room(words: object) -> int:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")

    monkeypatch.setattr(cli, "_dispatch", no_room)
    assert cli._answer(["sample"]) == 2
    told = capsys.readouterr().err
    assert "too small for this" in told and "Tried to allocate 2.00 GiB" in told and "bug" not in told


# ---- the card itself


def refused(work: "object", match: str) -> None:
    with FakeCard(), pytest.raises(Exception, match=match):
        work()  # pyright: ignore[reportCallIssue]


def on_card(*shape: int) -> Tensor:
    return torch.zeros(*shape, device="cuda")


def test_operands_of_both_sides_are_refused() -> None:
    refused(lambda: on_card(3) + torch.zeros(3), "at least two devices|on the same device")
    refused(lambda: on_card(3, 3) @ torch.zeros(3, 3), "at least two devices|on the same device")
    with FakeCard():
        assert (on_card(3) + 1.5).device == (on_card(3) * torch.tensor(2.0)).device  # single numbers may be anywhere


@pytest.mark.parametrize(
    "read", [float, bool, int, lambda x: x.item(), lambda x: x.tolist(), lambda x: x.nonzero(), lambda x: x.cpu()]
)
def test_whatever_reads_a_value_is_seen(read: "object") -> None:
    with FakeCard() as card:
        value = torch.ones((), device="cuda")
        try:
            read(value)  # pyright: ignore[reportCallIssue]
        except Exception as error:  # a shape that depends on values: no shape is made up for it
            assert "DynamicOutputShape" in type(error).__name__
        else:
            assert card.ledger.waits.total() + card.ledger.copies.total() == 1


def test_a_capture_refuses_what_a_graph_cannot_hold() -> None:
    for work in (lambda: bool(on_card(1) > 0), lambda: on_card(3).cpu(), lambda: torch.zeros(3).to(CUDA)):
        with FakeCard() as card:
            graph = torch.cuda.CUDAGraph()
            with pytest.raises(RuntimeError, match="while a graph is captured"), torch.cuda.graph(graph):
                work()
        assert not card.ledger.captures


def test_bytes_are_counted_until_they_die_and_no_room_is_said() -> None:
    with FakeCard() as card:
        first = on_card(1000)
        second = first.double()
        assert card.ledger.live == 4096 + 8192 and first.view(10, 100).numel() == 1000
        del second
        assert card.ledger.live == 4096 and card.ledger.peak == 12288
        card.room = 8192
        with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
            on_card(3000)
    assert card.ledger.live == 4096


def test_what_is_turned_into_fp32_is_noted() -> None:
    with FakeCard() as card:
        on_card(100, 100).bfloat16().float()
        on_card(3).bfloat16().float()
    assert card.ledger.upcasts.total() == 1
