import contextlib
import http.server
import json
import threading
import urllib.request
from pathlib import Path

import pytest

from finetune import cli
from finetune.doctor import audio, hardware, hub, probes, software

GPU = {
    "built_for": "13.0",
    "cuda": True,
    "device": "H",
    "bf16": True,
    "free_bytes": 9 * 2**30,
    "total_bytes": 10 * 2**30,
}


def test_python_versions():
    assert software.check_python((3, 11, 0)).status == "ok"
    old = software.check_python((3, 10, 9))
    assert old.status == "broken"
    assert old.fix


def test_a_torchaudio_that_cannot_load_is_a_finding(tmp_path, monkeypatch):
    package = tmp_path / "torchaudio"
    package.mkdir()
    (package / "__init__.py").write_text("raise OSError('undefined symbol: aoti_torch')")
    (tmp_path / "torch.py").write_text("")  # so that the real one need not be waited for
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    seen = probes.probe("torchaudio")
    assert "undefined symbol: aoti_torch" in seen["error"]
    check = software.check_torch_pair({"cuda": False}, seen)
    assert check.status == "broken"
    assert "undefined symbol: aoti_torch" in check.found
    assert "torchaudio" in check.fix


def test_a_library_that_crashes_the_process_is_a_finding(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("import os; os.abort()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "error" in probes.probe("torch")


def test_torch_that_does_not_load_hides_nothing_else():
    broken = {"error": "no"}
    assert hardware.check_cuda(broken).status == "note"
    assert hardware.check_bf16(broken).status == "note"
    assert hardware.check_gpu_memory(broken).status == "note"
    assert software.check_torch_pair(broken, broken).status == "broken"


def test_bitsandbytes_really_quantises():
    seen = probes.probe_bitsandbytes()
    assert 0 < seen["relative_error"] < 0.15
    assert seen["packed_bytes"] == 64 * 64 // 2
    assert software.check_bitsandbytes(seen).status == "ok"
    assert software.check_bitsandbytes({"relative_error": 0.5}).status == "broken"
    assert software.check_bitsandbytes({"relative_error": float("nan")}).status == "broken"
    assert software.check_bitsandbytes({"error": "no such library"}).fix


def test_a_gpu_is_described_and_its_absence_is_no_failure():
    assert hardware.check_cuda(GPU).status == "ok"
    assert hardware.check_bf16({**GPU, "bf16": False}).status == "note"
    assert hardware.check_gpu_memory(GPU).found == "9.0 of 10.0 GiB free"
    assert hardware.check_gpu_memory({**GPU, "free_bytes": 2**30}).status == "broken"
    for built_for in (None, "13.0"):
        check = hardware.check_cuda({"built_for": built_for, "cuda": False})
        assert check.status == "note"
        assert check.fix


def test_files_really_decode():
    check = audio.check_decoding()
    assert check.status == "ok", check.found
    assert all(ending in check.found for ending in ("wav", "flac", "ogg", "m4a"))


def test_a_decoder_that_returns_something_else_is_found(monkeypatch):
    monkeypatch.setattr(audio, "ENCODED", {"flac": ("no_such_encoder", 32_000)})
    assert audio.check_decoding().status == "broken"


def test_silence_is_not_taken_for_the_tone(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "HZ", 0.0)
    check = audio.check_decoding()
    assert check.status == "broken"
    assert "dB off" in check.found


def test_disk_space(tmp_path, monkeypatch):
    assert hardware.check_disk("Disk", tmp_path / "not" / "there" / "yet").name == "Disk"
    monkeypatch.setattr(hardware, "NEEDED_DISK_BYTES", 2**80)
    full = hardware.check_disk("Disk", tmp_path)
    assert full.status == "broken"
    assert full.fix


def test_the_model_cache_is_where_the_hub_library_keeps_it(monkeypatch):
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert hub.cache_folder() == Path("~/.cache/huggingface/hub").expanduser()
    monkeypatch.setenv("HF_HOME", "/a")
    assert hub.cache_folder() == Path("/a/hub")
    monkeypatch.setenv("HF_HUB_CACHE", "/b")
    assert hub.cache_folder() == Path("/b")


@contextlib.contextmanager
def hub_at_home(status: int):
    """A server on this machine that answers every HEAD request."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_hub_in_reach_and_out_of_reach(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with hub_at_home(200) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        assert hub.check_hub(offline=False).status == "ok"
    gone = hub.check_hub(offline=False)
    assert gone.status == "note"
    assert "out of reach" in gone.found
    assert gone.fix


@pytest.mark.parametrize("way", ["flag", "environment"])
def test_the_network_is_left_alone_when_asked(way, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("asked the network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1" if way == "environment" else "0")
    assert hub.check_hub(offline=way == "flag").status == "note"


@pytest.mark.parametrize("broken", [False, True])
def test_the_table_and_its_exit_code(broken, monkeypatch, capsys):
    answers = {
        "torch": {"built_for": "13.0", "cuda": False},
        "torchaudio": {"error": "cannot [load]"} if broken else {"samples": 320},
        "bitsandbytes": {"relative_error": 0.03, "packed_bytes": 1},
    }
    monkeypatch.setattr(probes, "probe", lambda name: json.loads(json.dumps(answers[name])))
    monkeypatch.setattr(hardware, "NEEDED_DISK_BYTES", 0)
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.main(["doctor", "--offline"]) == (1 if broken else 0)
    text = capsys.readouterr().out
    for name in (
        "Python",
        "torch and torchaudio",
        "CUDA",
        "bf16",
        "GPU memory",
        "bitsandbytes",
        "Decoding",
        "Model hub",
    ):
        assert name in text, name
    assert ("cannot [load]" in text) is broken
    assert ("Nothing is broken." in text) is not broken
