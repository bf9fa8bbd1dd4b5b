"""Pieces at once as memory allows: fitted beforehand, halved when it runs out, the same music in every case."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adapters.device_memory import DeviceTooSmallError, how_many_fit, in_halves
from adapters.family.load import load_lm
from adapters.sampler import Sampler
from configs.sample import SampleSettings
from data_prep.base_files import BaseFiles


class Device:
    """Has room for so many; notes every attempt."""

    def __init__(self, room: int) -> None:
        self.room, self.tried = room, []

    def make(self, items: Sequence[int]) -> list[str]:
        self.tried.append(len(items))
        if len(items) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")
        return [str(item) for item in items]


@pytest.mark.parametrize("room", [1, 2, 3, 7, 99])
def test_everything_is_made_in_order(room: int) -> None:
    device = Device(room)
    made, most = in_halves(device.make, range(9))
    assert made == [str(number) for number in range(9)]
    assert most <= room and most == max(size for size in device.tried if size <= room)


def test_what_did_not_fit_is_not_tried_again() -> None:
    device = Device(2)
    in_halves(device.make, range(16))
    assert device.tried == [16, 8, 4, 2, 2, 2, 2, 2, 2, 2, 2]


def test_no_room_for_one_is_told() -> None:
    with pytest.raises(DeviceTooSmallError, match="even one piece") as caught:
        in_halves(Device(0).make, [1, 2])
    assert "Tried to allocate" in caught.value.where


def test_room_is_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    assert how_many_fit(100, torch.device("cpu")) is None
    for name, value in {"mem_get_info": (900, 2000), "memory_reserved": 300, "memory_allocated": 200}.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert how_many_fit(100, torch.device("cuda")) == 8  # four fifths of 900 and of what the allocator keeps unused
    assert how_many_fit(5000, torch.device("cuda")) == 1
    assert how_many_fit(0, torch.device("cuda")) is None


@pytest.fixture
def sampler(mono_base: Path) -> Sampler:
    lm = load_lm(BaseFiles("debug", None, mono_base))
    return Sampler.around(lm, SampleSettings.model_validate({"duration_sec": 0.3}))


def texts(count: int) -> list[torch.Tensor]:
    return [torch.randn(3 + n, 12, generator=torch.Generator().manual_seed(n)) for n in range(count)]


def test_a_sampler_plays_the_same_in_any_number_at_once(sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sampler.codes(texts(5))
    assert sampler.most_at_once is None
    plain, sizes = Sampler._play, []

    def small(self: Sampler, prompts: Any, *args: Any) -> Any:
        sizes.append(len(prompts))
        if len(prompts) > 2:
            raise torch.OutOfMemoryError("no room")
        return plain(self, prompts, *args)

    monkeypatch.setattr(Sampler, "_play", small)
    for ours, theirs in zip(sampler.codes(texts(5)), whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert sizes == [5, 2, 2, 1] and sampler.most_at_once == 2
    sizes.clear()
    for ours, theirs in zip(sampler.codes(texts(5)), whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert sizes == [2, 2, 1]  # known by now


def test_a_sampler_asks_how_many_fit(sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    import adapters.sampler

    asked = []

    def two(bytes_each: int, device: torch.device) -> int:
        asked.append(bytes_each)
        return 2

    monkeypatch.setattr(adapters.sampler, "how_many_fit", two)
    sampler.codes(texts(3))
    assert sampler.most_at_once == 2
    sampler.settings = sampler.settings.model_copy(update={"guidance": 1.0})
    sampler.codes(texts(1))
    spec = sampler.engine.spec
    assert asked[0] == 2 * asked[1] > 2 * 2 * spec.layers * spec.hidden * 256 * 4
