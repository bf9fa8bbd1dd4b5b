"""Ways to spoil an adapter's files, each a function of a seed: bytes, headers, JSON, names, whole files."""

import json
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

WEIGHTS, CONFIG, TOLD = "adapter_model.safetensors", "adapter_config.json", "woodshed.json"
WEIRD: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**53, 2**63, 2**64, 10**300, 1e308, -1e308, 1e-320, 0.5, float("nan"),
    float("inf"), "", "0", "x" * 5000, "\0", "\ud800", "\u202e\u200b", "[bold]x[/]", "../../etc/passwd", "C:\\x",
    "<script>", "(a+)+$", "^(.*)*$", "\x1b[2J", [], {}, [[]], [None], {"": {}}, {"__proto__": 1}, [0] * 1000,
]  # fmt: skip


def deep(rng: random.Random) -> Any:
    """A value nested so deeply that a naive reader overflows its stack."""
    value: Any = 1
    for _ in range(rng.choice([10, 100, 900])):
        value = [value] if rng.random() < 0.5 else {"a": value}
    return value


def flip(rng: random.Random, data: bytes) -> bytes:
    """A few bits; more often near the start, where headers are."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8, 64]) if changed else 0):
        reach = rng.choice([8, 64, 2000, len(changed)])
        place = rng.randrange(min(reach, len(changed)))
        changed[place] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(rng: random.Random, data: bytes) -> bytes:
    """Truncated, extended, or with a piece doubled, dropped or moved."""
    a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    ways = (data[:a], data[b:], data + rng.randbytes(9), data[:a] + data[b:], data[:b] + data[a:], data + data, b"")
    return rng.choice(ways)


def splice(rng: random.Random, data: bytes) -> bytes:
    """Strange bytes put in."""
    place = rng.randrange(len(data) + 1)
    pieces = [b"\x80\x04", b"PK\x03\x04", b"\0" * 9, b"\xff" * 8, b'"' * 3, b"{" * 9999, b"[" * 9999]
    strange = [*pieces, rng.randbytes(20)]
    return data[:place] + rng.choice(strange) + data[place + rng.choice([0, 0, 8]) :]


def change_json(rng: random.Random, value: Any) -> Any:
    """One place of a JSON value made strange: replaced, renamed, dropped, doubled."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        way = rng.random()
        if way < 0.15:
            return {k: v for k, v in value.items() if k != key}
        if way < 0.3:
            return {(_odd_name(rng, k) if k == key else k): v for k, v in value.items()}
        if way < 0.4:
            return {**value, _odd_name(rng, key): change_json(rng, value[key])}
        return {**value, key: change_json(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.7:
        place = rng.randrange(len(value))
        return [*value[:place], change_json(rng, value[place]), *value[place + 1 :]]
    return deep(rng) if rng.random() < 0.1 else rng.choice(WEIRD)


def _odd_name(rng: random.Random, name: str) -> str:
    names = [name.upper(), name + ".", "." + name, name[:-1], name * 40, "\u0430" + name[1:], "", "a.b", "\0"]
    return rng.choice(names)


def as_text(rng: random.Random, value: Any) -> bytes:
    """Written as JSON, sometimes with a key twice or in another encoding."""
    text = json.dumps(value, ensure_ascii=rng.random() < 0.8)
    if rng.random() < 0.05:
        text = text.replace("{", '{"r": 1, "r": 2, ', 1)
    encoding = rng.choice(["utf-8"] * 9 + ["utf-16"])
    return text.encode(encoding, errors="surrogatepass")


def mutate_json(rng: random.Random, data: bytes) -> bytes:
    """A JSON file, strange in one to three places."""
    value = json.loads(data)
    for _ in range(rng.choice([1, 1, 2, 3])):
        value = change_json(rng, value)
    return as_text(rng, value)


def add_giant(header: Any) -> Any:
    """An entry of no bytes with sides that no memory could hold: it fits every file."""
    entry = {"dtype": "F32", "shape": [0, 2**52, 2**52], "data_offsets": [0, 0]}
    if not isinstance(header, dict):
        return header  # spoilt already
    return {**header, f"base_model.model.{'x' * 9}.lora_A.weight": entry}


def mutate_header(rng: random.Random, data: bytes) -> bytes:
    """A safetensors file whose header says something else; its length is sometimes told wrongly."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    if rng.random() < 0.1:
        header = add_giant(header)
    else:
        for _ in range(rng.choice([1, 1, 2, 3])):
            header = change_json(rng, header)
    text = as_text(rng, header)
    lies = [len(text)] * 9 + [0, 1, len(text) - 1, len(text) + 1, 2**31, 2**63, 2**64 - 1]
    return struct.pack("<Q", rng.choice(lies)) + text + data[8 + length :]


BYTES: list[Callable[[random.Random, bytes], bytes]] = [flip, cut, splice]


def mutate_folder(rng: random.Random, folder: Path) -> None:
    """Spoil one or two files of an adapter's folder in place."""
    for _ in range(rng.choice([1, 1, 1, 2])):
        path = folder / rng.choice([WEIGHTS, WEIGHTS, CONFIG, CONFIG, TOLD, TOLD])
        way = rng.random()
        if not path.is_file():
            continue
        if way < 0.03:
            _no_file(rng, path)
        elif way < 0.08:
            other = folder / rng.choice([WEIGHTS, CONFIG, TOLD])
            path.write_bytes(other.read_bytes() if other.is_file() else b"")
        else:
            path.write_bytes(_mutated(rng, path))


def _no_file(rng: random.Random, path: Path) -> None:
    """Something that is no ordinary file in a file's place, or nothing."""
    path.unlink()
    ways: list[Callable[[], None]] = [
        lambda: None,
        path.mkdir,
        lambda: path.symlink_to(path),
        lambda: path.symlink_to("/dev/zero"),
        lambda: os.mkfifo(path),
    ]
    rng.choice(ways)()


def _mutated(rng: random.Random, path: Path) -> bytes:
    data = path.read_bytes()
    structured = mutate_header if path.name == WEIGHTS else mutate_json
    if rng.random() < 0.6:
        try:
            return structured(rng, data)
        except (ValueError, struct.error, RecursionError):
            pass  # spoilt already
    return rng.choice(BYTES)(rng, data) if data else rng.randbytes(30)
