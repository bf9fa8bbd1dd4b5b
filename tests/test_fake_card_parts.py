"""What stands around the model on a card that is not there: codec, separator, text encoder, previews, and the card."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from fake_card.card import FakeCard, needs_known_torch
from safetensors.torch import save_file
from torch import Tensor

from adapters.family.load import load_lm
from configs.train import PreviewSettings
from data_prep.base_files import BaseFiles
from data_prep.codec import port
from data_prep.codec.registry import load_base_codec
from data_prep.debug_base import write_debug_base
from data_prep.separator import load_separator
from data_prep.text_encoder import TextEncoder
from finetune.preview import Previews

pytestmark = needs_known_torch
CUDA = torch.device("cuda")
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
        refused = pytest.raises(RuntimeError, match="while a graph is captured")
        with FakeCard() as card, refused, torch.cuda.graph(torch.cuda.CUDAGraph()):
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
