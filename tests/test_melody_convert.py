"""A melody model in audiocraft's form and back."""

import torch
import yaml
from safetensors.torch import load_file
from torch.testing import assert_close

from adapters.convert.run import convert
from data_prep.base_files import resolve_base
from tests.melody_fixtures import melody_base


def test_round_trip_through_audiocraft(tmp_path) -> None:
    base = resolve_base(str(melody_base(tmp_path / "base").folder))
    convert(base.folder, "audiocraft", tmp_path / "ac")
    state = load_file(tmp_path / "ac" / "state_dict.safetensors")
    assert not any("cross" in name for name in state)
    assert_close(state["condition_provider.conditioners.self_wav.chroma.spec.window"], torch.hann_window(2048))
    original = load_file(base.folder / "model.safetensors")
    own = "condition_provider.conditioners.self_wav.output_proj"
    assert_close(state[f"{own}.weight"], original["audio_enc_to_dec_proj.weight"])
    convert(tmp_path / "ac", "transformers", tmp_path / "back", base=base)
    back = load_file(tmp_path / "back" / "model.safetensors")
    assert back.keys() == original.keys()
    for name, tensor in original.items():
        assert_close(back[name], tensor)


def test_its_settings_put_both_conditions_before_the_music(tmp_path) -> None:
    convert(melody_base(tmp_path / "base", 2).folder, "audiocraft", tmp_path / "ac")
    told = yaml.safe_load((tmp_path / "ac" / "xp_cfg.yaml").read_text())
    assert told["fuser"]["prepend"] == ["self_wav", "description"] and told["fuser"]["cross"] == []
    assert not told["transformer_lm"]["cross_attention"] and told["transformer_lm"]["n_q"] == 8
    assert told["conditioners"]["self_wav"]["chroma_stem"]["radix2_exp"] == 11
