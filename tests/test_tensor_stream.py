"""Model files that are no model files: refused in plain words by every command that streams them."""

import json
import shutil
import struct

import pytest
from adapter_fixtures import write_adapter

from adapters.tensor_stream import StoredTensors
from configs.errors import UserError
from finetune.cli import main

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 2364424\n"


def with_header(value) -> bytes:
    text = json.dumps(value).encode()
    return struct.pack("<Q", len(text)) + text


DAMAGED = {
    "pointer": (POINTER, "git lfs pull"),
    "empty": (b"", "empty or cut off"),
    "seven bytes": (b"1234567", "empty or cut off"),
    "long header": (struct.pack("<Q", 2**40) + b"{}", "longer than the file"),
    "no JSON": (struct.pack("<Q", 2) + b"{{", "not valid"),
    "a list": (with_header([1]), "no table of tensors"),
    "no tensors": (with_header({"a": 1}), "no table of tensors"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_what_is_no_model_file_is_refused_by_name(tmp_path, kind):
    data, words = DAMAGED[kind]
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(UserError) as caught:
        StoredTensors([tmp_path / "model.safetensors"])
    assert words in str(caught.value) and "model.safetensors" in caught.value.what


def test_a_file_that_ends_early_is_refused(mono_base, tmp_path):
    data = (mono_base / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(data[:-1])
    stored = StoredTensors([tmp_path / "model.safetensors"])
    with pytest.raises(UserError, match="ends inside a tensor"):
        [stored[name] for name in stored]


@pytest.mark.parametrize("kind", ["pointer", "empty"])
def test_every_command_says_so(mono_base, tmp_path, capsys, kind):
    data, words = DAMAGED[kind]
    adapter = write_adapter(tmp_path / "mine", mono_base)
    base = shutil.copytree(mono_base, tmp_path / "base")
    (base / "model.safetensors").write_bytes(data)
    for command in (
        ["merge", str(adapter), str(tmp_path / "merged")],
        ["inspect", str(adapter)],
        ["blend", str(adapter), "--out", str(tmp_path / "blended")],
        ["convert", str(adapter), "--to", "transformers", "--out", str(tmp_path / "converted")],
    ):
        assert main([*command, "--base", str(base)]) == 2, command
        assert words in capsys.readouterr().err, command


def test_an_adapter_that_is_a_pointer(mono_base, tmp_path, capsys):
    adapter = write_adapter(tmp_path / "mine", mono_base)
    (adapter / "adapter_model.safetensors").write_bytes(POINTER)
    assert main(["inspect", str(adapter)]) == 2
    assert "git lfs pull" in capsys.readouterr().err
