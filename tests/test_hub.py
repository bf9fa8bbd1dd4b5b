"""Push and pull, against a stand-in for the hub on the loopback device: what is sent, taken, refused."""

import json
import re

import hub_stand_in
import pytest
import torch
import yaml
from adapter_fixtures import write_adapter
from huggingface_hub import constants

from adapters import adapter_files, hub
from adapters.card_check import check_card, front_matter
from adapters.redescribe import samples_of
from adapters.shareable import shared_files
from configs.errors import UserError
from finetune.cli import main

FOUR = {"adapter_model.safetensors", "adapter_config.json", "woodshed.json", "README.md"}
WEIGHTS = "adapter_model.safetensors"
BASE = "facebook/musicgen-small"

# huggingface_hub 1.33 hands files to httpx by an argument that httpx 0.28 wants called otherwise.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<:DeprecationWarning")


@pytest.fixture
def server(monkeypatch):
    with hub_stand_in.running() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        yield server


@pytest.fixture
def adapter(mono_base, tmp_path):
    """An adapter that says it is for a base on the hub, with things beside it that are nobody's business."""
    folder = write_adapter(tmp_path / "blues", mono_base, told={"license": "cc-by-nc-4.0"})
    loaded = adapter_files.load(folder)
    assert loaded.woodshed is not None
    told = loaded.woodshed.model_copy(update={"base": loaded.woodshed.base.model_copy(update={"id": BASE})})
    adapter_files.save(folder, loaded.updates, told, overwrite=True, samples={"piano": "samples/piano.wav"})
    (folder / "samples").mkdir()
    (folder / "samples" / "piano.wav").write_bytes(b"RIFF" + bytes(1000))
    (folder / "diary.txt").write_text("private")
    (folder / ".env").write_text("TOKEN=private")
    return folder


def paths(server):
    return [path for _, path, _ in server.requests]


def test_nothing_is_sent_before_it_is_allowed(server, adapter, capsys):
    assert main(["push", str(adapter), "ada/blues"]) == 0
    shown = capsys.readouterr().out
    assert set(re.findall(r"B  (\S+)|bytes  (\S+)", shown)) and all(name in shown for name in FOUR)
    assert "samples/piano.wav" in shown and "diary" not in shown and "--yes" in shown
    assert server.requests == [] and server.repos == {}


def test_exactly_what_was_listed_is_sent(server, adapter, capsys):
    assert main(["push", str(adapter), "ada/blues", "--yes"]) == 0
    shown = capsys.readouterr().out
    sent = server.repos["ada/blues"]
    assert set(sent) == {file.name for file in shared_files(adapter)} == {*FOUR, "samples/piano.wav"}
    assert all(name in shown for name in sent)
    assert all(data == (adapter / name).read_bytes() for name, data in sent.items())
    assert server.created[0]["visibility"] == "private"
    everything = b"".join([*sent.values(), *server.objects.values()])
    assert b"private" not in everything and b"TOKEN" not in everything
    assert main(["push", str(adapter), "ada/open", "--yes", "--public"]) == 0
    assert server.created[1]["visibility"] == "public"


def test_an_upload_goes_on_where_it_stopped(server, adapter, capsys):
    server.refuse = {"/commit/"}
    assert main(["push", str(adapter), "ada/blues", "--yes"]) == 2
    assert "refused" in capsys.readouterr().err and server.repos["ada/blues"] == {}
    assert len(server.asked("PUT", "/lfs/")) == 2
    server.refuse = set()
    assert main(["push", str(adapter), "ada/blues", "--yes"]) == 0
    assert len(server.asked("PUT", "/lfs/")) == 2, "no large file is sent twice"
    assert WEIGHTS in server.repos["ada/blues"]


def test_without_the_right_to_write(server, adapter, capsys):
    for part in ("/api/", "/lfs/"):
        server.refuse = {part}
        assert main(["push", str(adapter), "ada/blues", "--yes"]) == 2
        assert "hf auth login" in capsys.readouterr().err
    assert server.repos.get("ada/blues", {}) == {}


def edit_card(folder, **changes):
    text = (folder / "README.md").read_text()
    fields = {**front_matter(text), **changes}
    fields = {name: value for name, value in fields.items() if value is not None}
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(fields)}---\n" + text.split("---\n", 2)[2])


WRONG_CARDS = {
    "base_model: must be": {"base_model": None},
    "the adapter was made for": {"base_model": "facebook/musicgen-large"},
    "license: missing": {"license": None},
    "license: the card says mit": {"license": "mit"},
    "library_name": {"library_name": "diffusers"},
    "is not there": {"widget": [{"text": "x", "output": {"url": "samples/none.wav"}}]},
}


@pytest.mark.parametrize("words", WRONG_CARDS)
def test_cards_that_are_not_ready_are_refused(server, adapter, words):
    check_card(adapter, adapter_files.load(adapter))
    edit_card(adapter, **WRONG_CARDS[words])
    with pytest.raises(UserError, match=words):
        hub.plan_push(adapter)
    assert server.requests == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no block",
        "---\n[1\n---\n",
        "---\n- a\n---\n",
        "---\na: &x 1\nb: *x\n---\n",
        "---\na",
        "---\na: !!python/name:os.system\n---\n",
        "---\na: " + "[" * 3000 + "]" * 3000 + "\n---\n",
    ],
)
def test_front_matter_that_is_none(text):
    with pytest.raises(ValueError, match=r"block|front matter"):
        front_matter(text)


def test_samples_are_read_off_a_card_without_believing_it(adapter):
    (adapter / "samples").mkdir(exist_ok=True)
    (adapter / "samples" / "a.wav").write_bytes(b"")
    widget = [{"text": "soft piano", "output": {"url": "samples/a.wav"}}]
    edit_card(adapter, widget=widget)
    assert samples_of(adapter) == ({"soft piano": "samples/a.wav"}, {})
    card = (adapter / "README.md").read_text()
    for words in ("*k", "2020-13-45", "!!python/name:os.system"):
        (adapter / "README.md").write_text(card.replace("soft piano", words).replace("---\n", "---\nk: &k [a]\n", 1))
        assert samples_of(adapter) == ({}, {})


def test_a_path_of_this_machine_is_not_told(adapter):
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "/home/ada/x"}))
    with pytest.raises(UserError, match="folder of this machine"):
        hub.plan_push(adapter)


def put(server, adapter, changes: dict[str, bytes] | None = None) -> dict[str, bytes]:
    files = {file.name: file.path.read_bytes() for file in shared_files(adapter)} | (changes or {})
    server.repos["ada/blues"] = files
    return files


def test_pull_takes_an_adapter_and_nothing_else(server, adapter, tmp_path, capsys):
    strangers = {
        "run_me.py": b"print()",
        "adapter_model.bin": b"\x80\x04",
        "samples/x.exe": b"MZ",
        ".gitattributes": b"",
    }
    put(server, adapter, {**strangers, "../escape.txt": b"x"})
    out = tmp_path / "got"
    assert main(["pull", "ada/blues", str(out)]) == 0
    assert "blues, for facebook/musicgen-small" in capsys.readouterr().out
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert names == {*FOUR, "samples/piano.wav"}
    assert all((out / name).read_bytes() == (adapter / name).read_bytes() for name in names)
    assert not any("run_me" in path or ".bin" in path or "up.txt" in path for path in paths(server))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    one, other = adapter_files.load(adapter).updates, adapter_files.load(out).updates
    assert all(torch.equal(one[module].b, other[module].b) for module in one)


def test_a_broken_download_goes_on_where_it_stopped(server, adapter, tmp_path, capsys):
    data = put(server, adapter)[WEIGHTS]
    server.break_after[WEIGHTS] = 1000
    assert main(["pull", "ada/blues", str(tmp_path / "got")]) == 2
    assert "connection broke" in capsys.readouterr().err and not (tmp_path / "got").exists()
    (part,) = tmp_path.glob(f".got.*.partial/{WEIGHTS}.part")
    assert part.read_bytes() == data[: part.stat().st_size] and part.stat().st_size == 1000
    server.requests.clear()
    assert main(["pull", "ada/blues", str(tmp_path / "got")]) == 0
    fetched = server.asked("GET", "/resolve/")
    assert len(fetched) == 1, "what was whole is not fetched again"
    assert {name.lower(): text for name, text in fetched[0].items()}["range"] == "bytes=1000-"
    assert (tmp_path / "got" / WEIGHTS).read_bytes() == data


def test_a_new_commit_is_not_mixed_with_an_old_part(server, adapter, tmp_path):
    put(server, adapter)
    server.break_after[WEIGHTS] = 1000
    with pytest.raises(UserError):
        hub.pull("ada/blues", tmp_path / "got")
    put(server, adapter, {"README.md": b"new"})
    assert hub.pull("ada/blues", tmp_path / "got").folder == tmp_path / "got"
    assert (tmp_path / "got" / "README.md").read_bytes() == b"new"


@pytest.mark.parametrize("kind", ["other bytes", "more", "other text"])
def test_what_is_not_what_the_hub_says_is_refused(server, adapter, tmp_path, kind):
    data = put(server, adapter)
    name = "README.md" if kind == "other text" else WEIGHTS
    changed = {"other bytes": b"?" + data[WEIGHTS][1:], "more": data[WEIGHTS] + bytes(2**20)}
    server.served[name] = changed.get(kind, b"!" * len(data["README.md"]))
    with pytest.raises(UserError, match="not what the hub says"):
        hub.pull("ada/blues", tmp_path / "got")
    assert not list(tmp_path.glob("*got*")) and not list(tmp_path.glob(".*got*"))


UNFIT = {
    "holds no adapter": {WEIGHTS: None},
    "holds no": {"adapter_config.json": None},
    "at most": {"README.md": b"x" * (2**20 + 1)},
    "not LORA": {"adapter_config.json": b'{"peft_type": "IA3"}'},
    "same file": {"samples/Piano.wav": b"RIFF"},
}


@pytest.mark.parametrize("words", UNFIT)
def test_unsound_adapters_are_not_left_behind(server, adapter, tmp_path, words):
    files = put(server, adapter)
    for name, data in UNFIT[words].items():
        files.pop(name, None)
        if data is not None:
            files[name] = data
    (tmp_path / "in").mkdir()
    with pytest.raises(UserError, match=words):
        hub.pull("ada/blues", tmp_path / "in" / "got")
    assert list((tmp_path / "in").iterdir()) == []


def test_mistakes_are_told(server, adapter, tmp_path, capsys):
    assert main(["pull", "ada/nothing", str(tmp_path / "got")]) == 2
    assert "no ada/nothing on the hub" in capsys.readouterr().err
    assert main(["pull", "no/such/id", str(tmp_path / "got")]) == 2
    assert "no id on the hub" in capsys.readouterr().err
    assert main(["pull", "ada/blues", str(adapter)]) == 2
    assert "there already" in capsys.readouterr().err


def test_offline_is_told(adapter, tmp_path, capsys):
    assert main(["pull", "ada/blues", str(tmp_path / "got")]) == 2
    assert "cannot be used" in capsys.readouterr().err
