"""The merged model in audiocraft's own LMModel, installed from the package index: `pytest -m network`."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from adapter_fixtures import HEAD, MODULES, TABLE, fixed_batch, lm_logits, write_adapter
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from adapters import adapter_files
from adapters.convert.run import convert
from data_prep.base_files import resolve_base

SCRIPT = Path(__file__).with_name("audiocraft_logits.py")
PACKAGES = """
audiocraft==1.3.0 xformers flashy omegaconf antlr4-python3-runtime==4.9.3 hydra-core hydra-colorlog colorlog num2words
docopt einops julius dora-search treetable retrying openunmix submitit torchmetrics lightning-utilities encodec
spacy<3.9 thinc<8.4 blis<1.4 cymem preshed murmurhash wasabi srsly catalogue confection spacy-legacy spacy-loggers
weasel typer cloudpathlib smart-open langcodes language-data marisa-trie
"""
"""Of audiocraft and what it imports. It pins an old torch: its requirements are not followed, ours is used."""


@pytest.fixture(scope="module")
def audiocraft_python(tmp_path_factory) -> Path:
    """An environment of its own that also sees the packages of this one."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed")
    folder = tmp_path_factory.mktemp("audiocraft") / "venv"
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, folder], check=True)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    packages = folder / "lib" / version / "site-packages"
    (packages / "here.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = folder / "bin" / "python"
    subprocess.run([uv, "pip", "install", "-q", "--python", python, "--no-deps", *PACKAGES.split()], check=True)
    return python


@pytest.mark.network
@pytest.mark.parametrize("base_name", ["mono_base", "stereo_base"])
def test_merged_model_in_audiocraft_gives_our_logits(base_name, audiocraft_python, request, tmp_path):
    folder = request.getfixturevalue(base_name)
    base = resolve_base(str(folder))
    adapter = write_adapter(tmp_path / "mine", folder, modules=(*MODULES, TABLE, HEAD))
    convert(adapter, "audiocraft", tmp_path / "ac", base=base)
    codes, conditions = fixed_batch(base.card, base.n_codebooks, base.config.text_encoder.hidden_size)  # pyright: ignore
    inputs, logits = tmp_path / "inputs.safetensors", tmp_path / "logits.safetensors"
    save_file({"codes": codes[:1].contiguous(), "text_states": conditions["text"].values[:1].contiguous()}, inputs)
    words = [audiocraft_python, SCRIPT, tmp_path / "ac", inputs, logits]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    ours = lm_logits(base, adapter_files.load(adapter).updates)[:1]
    assert_close(load_file(logits)["logits"], ours, rtol=1e-4, atol=1e-4)
    assert float((ours - lm_logits(base)[:1]).abs().max()) > 0.01
