"""The melody of a clip is read from the track's separated stems, at the clip's place; the clip itself stays the mix."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from test_separate import small_model, write_safetensors

from configs.prep import PrepSettings
from data_prep import chroma, versions
from data_prep.base_files import resolve_base
from data_prep.clips import read_clips
from data_prep.condition_sources.registry import source_of
from data_prep.prepare import prepare
from data_prep.prepared import PreparedDataset
from data_prep.segment import Segment
from data_prep.write_audio import write_audio
from tests.test_chroma import line

RATE_HZ = 32_000
pytestmark = pytest.mark.usefixtures("prep_in_this_process")


@pytest.fixture
def settings(tmp_path: Path) -> PrepSettings:
    folder = tmp_path / "demucs"
    folder.mkdir()
    write_safetensors(small_model(0), folder / "m0.safetensors")
    (folder / "tiny.yaml").write_text(yaml.safe_dump({"models": ["m0"]}))
    return PrepSettings.model_validate(
        {
            "base": "debug-melody",
            "device": "cpu",
            "workers": 1,
            "segment": {"max_sec": 1, "min_sec": 0.9},
            "stems": {"model": str(folder)},
        }
    )


def test_rest_is_separated_once_and_read_at_the_clips_place(tmp_path: Path, settings, monkeypatch) -> None:
    monkeypatch.setattr(chroma, "PITCHED", 0.0)  # what random weights separate need not have a pitch
    write_audio(tmp_path / "songs" / "a.wav", np.repeat(0.3 * line(0, 2.0)[None].numpy(), 2, axis=0), RATE_HZ)
    asked, real = [], versions.separate

    def counted(path: Path, selections, *args, **kwargs):
        asked.append([selection.name for selection in selections])
        return real(path, selections, *args, **kwargs)

    monkeypatch.setattr(versions, "separate", counted)
    prepare(tmp_path / "songs", tmp_path / "d", settings)
    assert asked == [["other+vocals"]]
    dataset = PreparedDataset(tmp_path / "d")
    rows = dataset.clips()
    assert len(rows) == 2 and {row.stems for row in rows} == {"mix"}
    (stem,) = (tmp_path / "d" / ".cache" / "stems").rglob("*.wav")
    segments = [Segment(row.start_sec, row.duration_sec) for row in sorted(rows, key=lambda row: row.start_sec)]
    source, kind = source_of("melody"), resolve_base("debug-melody").spec.condition("melody")
    assert source is not None
    audio = read_clips(stem, segments, sample_rate_hz=RATE_HZ, channels=1)
    for row, samples in zip(sorted(rows, key=lambda row: row.start_sec), audio, strict=True):
        values = dataset.condition("melody", row.id)
        expected = source.values(samples[0], kind)
        assert values is not None and expected is not None
        np.testing.assert_array_equal(values, expected)
    (tmp_path / "d" / "prep.yaml").unlink()
    prepare(tmp_path / "songs", tmp_path / "d", settings)
    assert len(asked) == 1
