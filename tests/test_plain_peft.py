"""What Woodshed writes is loaded by plain peft in a Python where Woodshed cannot be imported, with the same logits."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from adapter_fixtures import HEAD, MODULES, TABLE, Q, fixed_batch, lm_logits, write_adapter
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from adapters import adapter_files
from data_prep.base_files import resolve_base
from finetune.cli import main

SCRIPT = Path(__file__).with_name("plain_peft_smoke.py")
PACKAGES = ("torch", "transformers", "peft", "safetensors", "sentencepiece", "numpy")


def logits_elsewhere(python: list, base: Path, adapter: Path, folder: Path, *packages: str):
    """Logits of base and adapter in another Python."""
    codes, conditions = fixed_batch(64, 4, 12)
    tensors = {"codes": codes, "text_states": conditions["text"].values, "text_mask": conditions["text"].mask.long()}
    save_file(tensors, folder / "inputs.safetensors")
    words = [*python, SCRIPT, base, adapter, folder / "inputs.safetensors", folder / "logits.safetensors", *packages]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return load_file(folder / "logits.safetensors")["logits"]


def blended(base: Path, folder: Path) -> Path:
    """An adapter that has been through most of what can be done to one: blended of mixed ranks, rsLoRA and tables."""
    one = write_adapter(folder / "one", base, seed=1, modules=(*MODULES, TABLE, HEAD))
    other = write_adapter(folder / "other", base, seed=2, rank=3, rslora=True, modules=(Q,))
    command = ["blend", str(one), f"{other}@0.5", "--base", str(base), "--out", str(folder / "both")]
    assert main(command) == 0
    return folder / "both"


def test_plain_peft_without_woodshed(mono_base, tmp_path):
    adapter = blended(mono_base, tmp_path)
    # -I -S: no site-packages, so no .pth file that makes Woodshed importable; the folder itself is given.
    python = [sys.executable, "-I", "-S"]
    got = logits_elsewhere(python, mono_base, adapter, tmp_path, sysconfig.get_path("purelib"))
    base = resolve_base(str(mono_base))
    wanted = lm_logits(base, adapter_files.load(adapter).updates)
    assert_close(got, wanted, rtol=1e-4, atol=1e-4)
    assert float((got - lm_logits(base)).abs().max()) > 0.05


@pytest.mark.network
def test_plain_peft_in_an_environment_of_its_own(mono_base, tmp_path):
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed")
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([uv, "pip", "install", "-q", "--python", python, *PACKAGES], check=True)
    adapter = blended(mono_base, tmp_path)
    got = logits_elsewhere([python], mono_base, adapter, tmp_path)
    wanted = lm_logits(resolve_base(str(mono_base)), adapter_files.load(adapter).updates)
    assert_close(got, wanted, rtol=1e-4, atol=1e-4)
