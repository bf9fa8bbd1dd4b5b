"""Merged models: the same logits as the adapter, in bounded memory, and transformers loads them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close
from transformers import MusicgenForConditionalGeneration, pipeline
from transformers.modeling_outputs import BaseModelOutput

from adapters import lora
from adapters.adapter_files import Adapter, load, save
from adapters.conditions import Conditions
from adapters.family.load import load_lm
from adapters.fit import describe_base, describe_codec
from adapters.low_rank import LowRank
from adapters.merge import merge, merged_weight
from adapters.metadata import Woodshed
from adapters.tensor_stream import rewrite
from configs.errors import UserError
from configs.train import LoraSettings
from data_prep.base_files import resolve_base
from data_prep.debug_base import base_config, write_debug_base
from finetune import cli

LAYER = "decoder.model.decoder.layers"


@pytest.fixture
def files(mono_base):
    return resolve_base(str(mono_base))


def an_adapter(files, seed=0, **settings) -> Adapter:
    """An adapter with moved numbers, for the given settings."""
    lm = load_lm(files)
    trained = lora.attach(lm, LoraSettings(**{"rank": 3, "alpha": 5.0, **settings}), seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in trained.parameters().values():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return Adapter(trained.updates())


def on_heads_and_embeddings() -> Adapter:
    torch.manual_seed(0)
    head = LowRank(torch.randn(2, 16), torch.randn(64, 2), 1.0)
    table = LowRank(torch.randn(2, 65), torch.randn(16, 2), 1.0, embedding=True)
    return Adapter({"decoder.lm_heads.1": head, "decoder.model.decoder.embed_tokens.2": table})


def batch(lm):
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randint(0, lm.card + 1, (2, lm.n_codebooks, 6), generator=generator)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    return inputs, Conditions.of_text(torch.randn(2, 3, lm.spec.text_width, generator=generator), mask)


def full_logits(folder: Path, inputs, conditions):
    full = MusicgenForConditionalGeneration.from_pretrained(folder).eval()
    with torch.no_grad():
        out = full(
            encoder_outputs=BaseModelOutput(last_hidden_state=conditions["text"].values),
            attention_mask=conditions["text"].mask.long(),
            decoder_input_ids=inputs.reshape(-1, inputs.shape[2]),
        )
    return out.logits.view(*inputs.shape, -1)


@pytest.mark.parametrize("kind", ["plain", "rslora", "dora", "pissa", "heads"])
@pytest.mark.parametrize("strength", [1.0, 0.3])
def test_merged_logits_equal_unmerged_through_the_full_model(files, kind, strength, tmp_path):
    flags = {"plain": {}, "rslora": {"rslora": True}, "dora": {"dora": True}, "pissa": {"init": "pissa"}}
    adapter = on_heads_and_embeddings() if kind == "heads" else an_adapter(files, **flags[kind])
    merge(files, [(adapter, strength)], tmp_path / "merged")
    lm = load_lm(files)
    inputs, conditions = batch(lm)
    untuned = lm(inputs, conditions)
    lora.attach_updates(lm, adapter.updates, strength)
    unmerged = lm(inputs, conditions)
    assert_close(full_logits(tmp_path / "merged", inputs, conditions), unmerged, rtol=1e-4, atol=1e-4)
    assert (unmerged - untuned).abs().max() > 0.02


def test_several_adapters_add_up_in_any_order(files, tmp_path):
    one, two = an_adapter(files, 1, dora=True), an_adapter(files, 2, targets=["q", "ffn"])
    merge(files, [(one, 0.7), (two, -0.4)], tmp_path / "a")
    merge(files, [(two, -0.4), (one, 0.7)], tmp_path / "b")
    base, a, b = (load_file(f / "model.safetensors") for f in (files.folder, tmp_path / "a", tmp_path / "b"))
    for name, weight in base.items():
        expected = weight.clone()
        for adapter, strength in ((one, 0.7), (two, -0.4)):
            update = adapter.updates.get(name.removesuffix(".weight"))
            expected += 0 if update is None else strength * update.delta(weight)
        assert_close(a[name], expected)
        assert_close(b[name], a[name])


def test_what_no_adapter_touches_is_copied_bit_for_bit(files, tmp_path):
    merge(files, [(an_adapter(files, targets=["q"]), 1.0)], tmp_path / "merged")
    base, merged = load_file(files.folder / "model.safetensors"), load_file(tmp_path / "merged" / "model.safetensors")
    changed = {name for name, weight in base.items() if not torch.equal(weight, merged[name])}
    assert changed == {f"{LAYER}.{n}.{a}.q_proj.weight" for n in (0, 1) for a in ("self_attn", "encoder_attn")}


def test_arithmetic_is_fp32_over_a_half_precision_base():
    torch.manual_seed(0)
    weight = torch.randn(8, 8).bfloat16()
    update = LowRank(torch.randn(2, 8) * 1e-3, torch.randn(8, 2) * 1e-3, 2.0)
    expected = (weight.double() + 3 * (update.b.double() @ update.a.double())).float()
    assert_close(merged_weight(weight, [(update, 1.0)] * 3), expected)


@pytest.mark.parametrize(("dtype", "expected"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_output_dtype(files, dtype, expected, tmp_path):
    merge(files, [(an_adapter(files), 1.0)], tmp_path / "merged", dtype=dtype)
    tensors = load_file(tmp_path / "merged" / "model.safetensors")
    assert {t.dtype for t in tensors.values() if t.is_floating_point()} == {expected}
    assert MusicgenForConditionalGeneration.from_pretrained(tmp_path / "merged").dtype == expected


def test_shards_and_index_are_kept(files, tmp_path):
    from data_prep.debug_base import _write_base

    text = {"d_model": 12, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 2}
    codec = {"num_filters": 2, "hidden_size": 8, "codebook_size": 64, "num_lstm_layers": 1}
    config = base_config((16, 2, 2, 32), 1, text=text, codec=codec)
    _write_base(tmp_path / "base", config, seed=0, dtype=torch.float32, shard_bytes=20_000)
    sharded = resolve_base(str(tmp_path / "base"))
    adapter = an_adapter(sharded)
    merge(sharded, [(adapter, 1.0)], tmp_path / "merged")
    name = "model.safetensors.index.json"
    before, after = (json.loads((tmp_path / f / name).read_text()) for f in ("base", "merged"))
    assert after["weight_map"] == before["weight_map"] and len(set(after["weight_map"].values())) > 2
    lm = load_lm(sharded)
    inputs, conditions = batch(lm)
    lora.attach_updates(lm, adapter.updates)
    merged = full_logits(tmp_path / "merged", inputs, conditions)
    assert_close(merged, lm(inputs, conditions), rtol=1e-4, atol=1e-4)


def test_the_pipeline_of_transformers_plays_it(files, tmp_path):
    merge(files, [(an_adapter(files), 1.0)], tmp_path / "merged")
    play: Any = pipeline("text-to-audio", str(tmp_path / "merged"))
    out = play("slow ballad", generate_kwargs={"max_new_tokens": 8})
    assert out["sampling_rate"] == 32_000 and out["audio"].shape[-1] > 0


def test_an_existing_folder_and_a_wrong_base_are_refused_and_leave_nothing(files, stereo_base, tmp_path):
    adapter = an_adapter(files)
    (tmp_path / "taken").mkdir()
    with pytest.raises(UserError, match="is there already"):
        merge(files, [(adapter, 1.0)], tmp_path / "taken")
    wide = write_debug_base(tmp_path / "wide", hidden=32)
    with pytest.raises(UserError, match="does not fit"):
        merge(resolve_base(str(wide)), [(adapter, 1.0)], tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken", "wide"]


MEMORY_PROBE = """
import resource, sys, torch
from pathlib import Path
from adapters.tensor_stream import rewrite
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rewrite(Path(sys.argv[1]), Path(sys.argv[2]), lambda n, d: torch.float16, lambda n, t: (t.float() + 1).half())
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_memory_is_that_of_a_tensor_not_of_the_file(tmp_path):
    from safetensors.torch import save_file

    save_file({f"t{n}": torch.zeros(2_000_000) for n in range(40)}, tmp_path / "big")  # 320 MB in tensors of 8 MB
    root = Path(__file__).parent.parent
    command = [sys.executable, "-c", MEMORY_PROBE, str(tmp_path / "big"), str(tmp_path / "half")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    assert int(done.stdout) < 60e6
    assert_close(load_file(tmp_path / "half")["t7"], torch.ones(2_000_000, dtype=torch.float16))


def test_a_rewritten_file_is_a_valid_one_with_every_dtype(tmp_path):
    from safetensors.torch import save_file

    kinds = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
    tensors = {f"t{n}": torch.ones(n, 3).to(kind) for n, kind in enumerate(kinds)}
    save_file(tensors, tmp_path / "a")
    rewrite(tmp_path / "a", tmp_path / "b", lambda name, dtype: dtype, lambda name, tensor: tensor)
    again = load_file(tmp_path / "b")
    assert again.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert_close(again[name], tensor, rtol=0, atol=0)


def test_command_merges_with_strengths(files, tmp_path, capsys):
    adapter = an_adapter(files)
    base = describe_base(files, adapter.updates)
    save(tmp_path / "mine", adapter.updates, Woodshed(name="mine", base=base, codec=describe_codec(files)))
    words = ["merge", f"{tmp_path}/mine@0.5", str(tmp_path / "out"), "--base", str(files.folder), "--dtype", "fp32"]
    assert cli.main(words) == 0
    merge(files, [(load(tmp_path / "mine"), 0.5)], tmp_path / "reference")
    ours, expected = (load_file(tmp_path / f / "model.safetensors") for f in ("out", "reference"))
    for name, weight in expected.items():
        assert_close(ours[name], weight, rtol=0, atol=0)
    assert cli.main(["merge", f"{tmp_path}/mine@loud", str(tmp_path / "x")]) == 2
    assert cli.main(["merge", f"{tmp_path}/mine", str(tmp_path / "y")]) == 2
    assert "--base" in capsys.readouterr().err
