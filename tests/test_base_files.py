"""Bases are found, checked and read; debug bases are complete MusicGen checkpoints; fingerprints ignore precision."""

import json
import shutil
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import MusicgenConfig

from adapters.family.port import family_of
from configs.errors import UserError
from data_prep import base_files
from data_prep.base_files import BaseFiles, load_tensors, resolve_base
from data_prep.debug_base import FULL_CODEC, T5_BASE, TRUE_CONFIGS, base_config, write_debug_base
from data_prep.fingerprint import fingerprint


@pytest.fixture
def copy(mono_base, tmp_path):
    return shutil.copytree(mono_base, tmp_path / "copy")


def test_a_folder_is_resolved_and_described(stereo_base):
    files = resolve_base(str(stereo_base))
    assert (files.spec.channels, files.spec.n_codebooks, files.spec.card) == (2, 8, 64)
    assert (files.spec.frame_rate, files.spec.sample_rate_hz) == (50, 32_000)
    assert files.revision is None


def test_debug_is_written_once(own_cache):
    first, again = resolve_base("debug"), resolve_base("debug")
    assert first.folder == again.folder and first.folder.parent == own_cache
    assert resolve_base("debug-stereo").spec.channels == 2
    assert not [path for path in own_cache.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("channels", [1, 2])
def test_a_debug_base_is_a_whole_musicgen(channels, mono_base, stereo_base):
    from transformers import AutoProcessor, MusicgenForConditionalGeneration

    folder = (mono_base, stereo_base)[channels - 1]
    processor = AutoProcessor.from_pretrained(folder)
    loaded: Any = MusicgenForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    model, report = loaded
    assert not any(report.values()), report
    inputs = processor(text=["fast rock", "a slow piano"], padding=True, return_tensors="pt")
    torch.manual_seed(0)
    audio = model.generate(**inputs, max_new_tokens=30)
    assert audio.shape[:2] == (2, channels)
    assert 0.01 < audio.std() < 1, "neither silent nor clipping"


def test_the_logits_of_a_debug_base_are_not_degenerate(mono_base):
    from transformers import MusicgenForConditionalGeneration

    model = MusicgenForConditionalGeneration.from_pretrained(mono_base)
    codes = torch.randint(0, 64, (4, 20), generator=torch.Generator().manual_seed(0))
    states = torch.randn(1, 3, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        a, b = (
            model(encoder_outputs=(s,), attention_mask=torch.ones(1, 3), decoder_input_ids=codes).logits
            for s in (states, -states)
        )
    assert 0.5 < a.std() < 5
    assert (a - b).abs().max() > 0.1, "the text must matter"


def test_a_debug_base_follows_its_seed(tmp_path):
    names = ("a", "b", "c")
    for name, seed in zip(names, (0, 0, 1), strict=True):
        write_debug_base(tmp_path / name, seed=seed)
    one, same, other = (fingerprint(load_file(tmp_path / name / "model.safetensors")) for name in names)
    assert one == same != other


@pytest.mark.parametrize("like", sorted(TRUE_CONFIGS))
def test_true_configurations_have_the_published_shape(like):
    shape, channels = TRUE_CONFIGS[like]
    config = base_config(shape, channels, text=T5_BASE, codec=FULL_CODEC)
    assert config.decoder.num_codebooks == 4 * channels and config.decoder.vocab_size == 2048
    assert config.audio_encoder.target_bandwidths == [2.2] and config.audio_encoder.frame_rate == 50
    assert config.decoder.hidden_size // config.decoder.num_attention_heads == 64


def test_only_what_is_below_the_prefix_is_read(mono_base):
    files = resolve_base(str(mono_base))
    everything = load_tensors(files, "")
    decoder = load_tensors(files, "decoder")
    assert decoder.keys() == load_tensors(files, "decoder.").keys()
    assert {f"decoder.{name}" for name in decoder} == {name for name in everything if name.startswith("decoder.")}
    with pytest.raises(UserError, match="no weights named"):
        load_tensors(files, "melody_encoder")


def test_shards_and_half_precision_read_the_same(mono_base, tmp_path):
    from data_prep.debug_base import _random_tensors, _write_base

    whole = resolve_base(str(mono_base))
    config: Any = MusicgenConfig.from_pretrained(mono_base)
    folder = _write_base(tmp_path / "sharded", config, seed=0, dtype=torch.bfloat16, shard_bytes=40_000)
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 2 and not list(folder.glob("*.part"))
    sharded = load_tensors(resolve_base(str(folder)), "")
    expected = load_tensors(whole, "")
    assert sharded.keys() == expected.keys() == {name for name, _ in _random_tensors(config, 0, torch.float32)}
    torch.testing.assert_close(sharded, {name: tensor.bfloat16() for name, tensor in expected.items()})
    assert fingerprint(sharded) == fingerprint(expected)


def test_the_position_table_of_old_files_is_left_out(copy):
    path = copy / "model.safetensors"
    table = {"decoder.model.decoder.embed_positions.weights": torch.zeros(2048, 16)}
    save_file(load_file(path) | table, path)
    files = resolve_base(str(copy))
    assert not [name for name in family_of(files).stored(files) if "embed_positions" in name]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_fingerprint_is_the_same_in_every_precision(dtype):
    generator = torch.Generator().manual_seed(0)
    scales = torch.logspace(-12, 1, 5000)  # down to where float16 rounds to zero
    tensors = {"b": torch.randn(50, 100, generator=generator) * scales.reshape(50, 100), "a": torch.randn(3)}
    assert fingerprint(tensors) == fingerprint({name: tensors[name].to(dtype) for name in ("a", "b")})


def test_a_fingerprint_tells_weights_apart():
    base = {"w": torch.randn(64, 64, generator=torch.Generator().manual_seed(0))}
    others = [{"v": base["w"]}, {"w": base["w"].reshape(32, 128)}, {"w": base["w"].T}, {"w": -base["w"]}, {}]
    assert len({fingerprint(tensors) for tensors in (base, *others)}) == len(others) + 1
    assert fingerprint({"s": torch.tensor(1.0), "e": torch.zeros(0)}) == fingerprint(
        {"s": torch.tensor(2.0), "e": torch.zeros(0)}
    )


INDEX = "model.safetensors.index.json"
NO_INDEX = (b"", b"{", b"[]", b"{}", b"\xff", b'{"weight_map": []}', b'{"weight_map": {"a": 1}}')
LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 2200000000\n"


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda p: (p / "config.json").unlink(), "config.json cannot be read"),
        (lambda p: (p / "config.json").write_text("{"), "config.json cannot be read"),
        (lambda p: (p / "config.json").write_text("[]"), "config.json cannot be read"),
        (lambda p: _change_config(p, model_type="llama"), "llama"),
        (lambda p: (p / "model.safetensors").rename(p / "pytorch_model.bin"), "save_pretrained"),
        (lambda p: (p / "model.safetensors").unlink(), "missing"),
        (lambda p: (p / "model.safetensors").write_bytes(b""), r"model\.safetensors is empty or cut off"),
        (lambda p: (p / "model.safetensors").write_bytes(b"\0\1"), r"model\.safetensors is empty or cut off"),
        (lambda p: (p / "model.safetensors").write_bytes(b"\xff" * 7 + b"\x7f{}"), r"model\.safetensors is damaged"),
        (lambda p: (p / "model.safetensors").write_bytes(b"PK\3\4" * 100), r"model\.safetensors is damaged"),
        (lambda p: (p / "model.safetensors").write_text(LFS_POINTER), r"(?s)only points to the weights.*git lfs pull"),
        (lambda p: ((p / "model.safetensors").unlink(), (p / "model.safetensors").mkdir()), "cannot be read: Is a dir"),
        *((lambda p, t=t: (p / INDEX).write_bytes(t), f"{INDEX}, cannot be read") for t in NO_INDEX),
        (lambda p: [t.unlink() for t in p.glob("tokenizer*")], "tokenizer"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(copy, break_it, says):
    break_it(copy)
    with pytest.raises(UserError, match=says):
        resolve_base(str(copy))


def _change_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_damaged_weights_are_refused(copy):
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(UserError, match="missing or damaged"):
        load_tensors(resolve_base(str(copy)), "decoder")


@pytest.mark.parametrize("id", ["nobody/nothing", "facebook/musicgen-small"])
def test_out_of_reach_of_the_hub_says_so(id, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="hub cannot be reached") as caught:
        resolve_base(id)
    assert "debug" in caught.value.fix


@pytest.mark.parametrize("id", ["no such folder", "a/b/c", "../x"])
def test_what_is_no_id_is_called_so(id):
    with pytest.raises(UserError, match="no base"):
        resolve_base(id)


def hub_failure(name):
    import httpx
    from huggingface_hub import errors

    response = httpx.Response(404, request=httpx.Request("GET", "https://huggingface.co/x/y"))
    made = {
        "gated": lambda: errors.GatedRepoError("gated", response=response),
        "revision": lambda: errors.RevisionNotFoundError("no revision", response=response),
        "missing": lambda: errors.RepositoryNotFoundError("no repository", response=response),
        "network": lambda: httpx.ConnectError("no route"),
        "disk": lambda: OSError(28, "No space left on device"),
    }
    return made[name]()


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        ("gated", "must be granted"),
        ("revision", "no such revision"),
        ("missing", "no base"),
        ("network", "hub cannot be reached"),
        ("disk", "could not be stored"),
    ],
)
def test_each_failure_of_the_hub_has_its_words(failure, says, monkeypatch):
    def fail(*args, **kwargs):
        raise hub_failure(failure)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(UserError, match=says):
        resolve_base("some/model")


def test_the_hub_is_asked_for_safetensors_only(monkeypatch, mono_base):
    asked = {}

    def note(id, **kwargs):
        asked.update(kwargs)
        return str(mono_base)

    monkeypatch.setattr("huggingface_hub.snapshot_download", note)
    files = resolve_base("some/model", "abc")
    assert isinstance(files, BaseFiles) and asked["revision"] == "abc"
    assert not [pattern for pattern in asked["allow_patterns"] if "bin" in pattern or pattern == "*"]


def test_a_missing_starter_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(base_files, "__file__", str(tmp_path / "data_prep" / "base_files.py"))
    with pytest.raises(UserError, match="starter"):
        resolve_base("starter")
