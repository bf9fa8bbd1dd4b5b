"""Which adapter belongs to which base: every kind of mismatch is named, and force helps only where it may."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapters.adapter_files import Adapter
from adapters.fit import check_fit, describe_base, describe_codec
from adapters.low_rank import LowRank
from adapters.metadata import Woodshed
from configs.errors import UserError
from data_prep.base_files import resolve_base
from data_prep.debug_base import write_debug_base

Q = "decoder.model.decoder.layers.1.self_attn.q_proj"


@pytest.fixture(scope="module")
def files(mono_base):
    return resolve_base(str(mono_base))


def adapter_on(*modules: str, width: int = 16) -> dict[str, LowRank]:
    return {module: LowRank(torch.zeros(2, width), torch.zeros(width, 2), 2.0) for module in modules}


@pytest.fixture(scope="module")
def mine(files) -> Adapter:
    updates = adapter_on(Q)
    told = Woodshed(name="mine", base=describe_base(files, updates), codec=describe_codec(files))
    return Adapter(updates, base_id=told.base.id, woodshed=told)


def changed_base(mono_base, folder, prefix, change):
    """The base with other weights under a prefix."""
    files = resolve_base(str(write_debug_base(folder)))
    tensors = load_file(files.folder / "model.safetensors")
    for name in tensors:
        if name.startswith(prefix) and tensors[name].is_floating_point():
            tensors[name] = change(tensors[name])
    save_file(tensors, files.folder / "model.safetensors", metadata={"format": "pt"})
    return files


def test_its_own_base_fits_in_every_precision(mine, files, mono_base, tmp_path):
    assert check_fit(mine, files) == []
    half = changed_base(mono_base, tmp_path / "half", "", lambda tensor: tensor.bfloat16())
    assert check_fit(mine, half) == []


def test_same_shapes_with_other_weights_are_refused_unless_forced(mine, tmp_path):
    other = resolve_base(str(write_debug_base(tmp_path / "other", seed=1)))
    with pytest.raises(UserError, match="fingerprint of the weights"):
        check_fit(mine, other)
    assert any("fingerprint of the weights" in note for note in check_fit(mine, other, force=True))


def test_another_codec_is_refused_unless_forced(mine, mono_base, tmp_path):
    other = changed_base(mono_base, tmp_path / "codec", "audio_encoder", lambda tensor: -tensor)
    with pytest.raises(UserError, match="fingerprint of the codec") as caught:
        check_fit(mine, other)
    assert "fingerprint of the weights" not in caught.value.what
    assert len(check_fit(mine, other, force=True)) == 1


def test_stereo_names_the_codebooks(mine, stereo_base):
    with pytest.raises(UserError, match="codebooks: made for 4, the base has 8"):
        check_fit(mine, resolve_base(str(stereo_base)))


@pytest.mark.parametrize(
    ("changes", "named"), [({"hidden": 32}, "hidden size: made for 16"), ({"layers": 1}, "layers")]
)
def test_impossible_shapes_are_refused_even_by_force(mine, tmp_path, changes, named):
    other = resolve_base(str(write_debug_base(tmp_path / "other", **changes)))
    with pytest.raises(UserError, match=named):
        check_fit(mine, other, force=True)


@pytest.mark.parametrize(
    ("module", "named"),
    [
        ("decoder.model.decoder.layers.7.self_attn.q_proj", "has no such part"),
        ("text_encoder.encoder.block.0.layer.0.SelfAttention.q", "text encoder"),
        ("audio_enc_to_dec_proj", "melody"),
        ("decoder.lm_heads.0", "made for 16 × 16, the base has 64 × 16"),
    ],
)
def test_modules_it_cannot_have_are_named(files, module, named):
    with pytest.raises(UserError, match=named):
        check_fit(Adapter(adapter_on(module)), files, force=True)


def test_without_a_description_hub_names_are_compared(files):
    other = type(files)("facebook/musicgen-small", None, files.folder)
    assert check_fit(Adapter(adapter_on(Q), base_id="someone"), other) == []
    with pytest.raises(UserError, match="facebook/musicgen-medium"):
        check_fit(Adapter(adapter_on(Q), base_id="facebook/musicgen-medium"), other)
