import math
import resource
from pathlib import Path

import pytest
import torch
from torch import Tensor

from configs.errors import UserError
from configs.train import OptimSettings
from finetune import checkpoint, optimizers
from finetune.checkpoint import Position, State
from finetune.ema import Ema
from finetune.state_tree import pack, unpack


def same(left: object, right: object) -> bool:
    """Equal to the bit, types and dtypes included."""
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    if type(left) is not type(right):
        return False
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


def fresh_state(name: str = "adamw", ema_decay: float = 0.0, scaler: bool = False) -> State:
    torch.manual_seed(0)
    shapes = {"m.lora_A.weight": (64, 80), "m.lora_B.weight": (80, 64)}  # over 4096: 8-bit moments
    weights = {key: torch.nn.Parameter(torch.randn(shape)) for key, shape in shapes.items()}
    settings = OptimSettings.model_validate({"name": name, "lr": 1.0 if name == "prodigy" else 0.01})
    optimizer = optimizers.build(weights.items(), settings, 1.0)
    grad_scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=3) if scaler else None
    return State(weights, optimizer, Ema(weights, ema_decay), grad_scaler, Position())


def advance(state: State, n_steps: int) -> None:
    for _ in range(n_steps):
        target = torch.Generator().manual_seed(state.position.step)
        loss = sum((w - torch.randn(w.shape, generator=target)).pow(2).mean() for w in state.weights.values())
        assert isinstance(loss, Tensor)
        state.optimizer.zero_grad()
        if state.scaler is None:
            loss.backward()
            state.optimizer.step()
        else:
            state.scaler.scale(loss).backward()
            state.scaler.step(state.optimizer)
            state.scaler.update()
        state.ema.update()
        state.position.step += 1


@pytest.mark.parametrize("name", ["adamw", "adamw8bit", "prodigy"])
@pytest.mark.parametrize("more", [{}, {"ema_decay": 0.9, "scaler": True}])
def test_going_on_is_exact_to_the_bit(name: str, more: dict, tmp_path: Path) -> None:
    if name == "adamw8bit" and more:
        pytest.skip("torch's scaler on a CPU cannot look into bitsandbytes' step")
    straight, stopped = fresh_state(name, **more), fresh_state(name, **more)
    advance(straight, 7)
    advance(stopped, 4)
    stopped.position.best_loss = [1.0 / 3.0, 2.5]
    path = checkpoint.save(tmp_path, stopped)
    resumed = fresh_state(name, **more)
    advance(resumed, 2)  # a state of its own, to be replaced altogether
    checkpoint.load(path, resumed)
    assert same(resumed.optimizer.state_dict(), stopped.optimizer.state_dict())
    assert resumed.position == stopped.position
    advance(resumed, 3)
    for key, weight in straight.weights.items():
        assert torch.equal(weight, resumed.weights[key])
    assert same(straight.ema.average, resumed.ema.average)
    if straight.scaler is not None and resumed.scaler is not None:
        assert resumed.scaler.state_dict() == straight.scaler.state_dict()


def test_8_bit_moments_keep_their_type_on_disk(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    state = fresh_state("adamw8bit")
    advance(state, 1)
    tensors = load_file(checkpoint.save(tmp_path, state) / "optimizer.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.uint8, torch.float32}


def test_only_safetensors_and_json_are_written(tmp_path: Path) -> None:
    state = fresh_state(ema_decay=0.5)
    advance(state, 1)
    path = checkpoint.save(tmp_path, state)
    names = {file.name for file in path.iterdir()}
    assert names == {"adapter.safetensors", "average.safetensors", "optimizer.safetensors", "state.json"}
    assert path.name == "checkpoint-1" and [p.name for p in tmp_path.iterdir()] == ["checkpoint-1"]


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    state = fresh_state()
    for _ in range(5):
        advance(state, 3)
        checkpoint.save(tmp_path, state)
    (tmp_path / ".checkpoint-99.7.part").mkdir()
    checkpoint.prune(tmp_path, keep=2, best_step=6)
    assert checkpoint.all_steps(tmp_path) == [6, 12, 15]
    assert not (tmp_path / ".checkpoint-99.7.part").exists()
    newest = checkpoint.newest(tmp_path)
    assert newest is not None and newest.name == "checkpoint-15"
    assert checkpoint.newest(tmp_path / "nowhere") is None


def test_a_full_disk_costs_nothing_but_this_checkpoint(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk's end: the write itself fails, in the middle of a file."""
    state = fresh_state()
    advance(state, 1)
    before = {file.name: file.read_bytes() for file in checkpoint.save(tmp_path, state).iterdir()}
    advance(state, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(
            UserError, match=r"(?s)checkpoint-2 could not be written.*--resume: checkpoint-1 is untouched"
        ):
            checkpoint.save(tmp_path, state)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]
    assert before == {file.name: file.read_bytes() for file in (tmp_path / "checkpoint-1").iterdir()}
    assert checkpoint.save(tmp_path, state).name == "checkpoint-2"


def test_without_a_checkpoint_nobody_is_sent_to_resume(tmp_path: Path) -> None:
    state = fresh_state()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(UserError, match="run the command without --resume: there is no checkpoint yet"):
            checkpoint.save(tmp_path / "new", state)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_or_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    state = fresh_state()
    path = checkpoint.save(tmp_path, state)
    other = fresh_state()
    other.weights["m.lora_A.weight"] = torch.nn.Parameter(torch.zeros(2, 80))
    with pytest.raises(UserError, match="not those that this run learns"):
        checkpoint.load(path, other)
    (path / "optimizer.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{broken")
    with pytest.raises(UserError, match="cannot be used") as caught:
        checkpoint.load(path, state)
    assert "Delete this folder" in caught.value.fix


def test_average_becomes_the_adapter(tmp_path: Path) -> None:
    state = fresh_state(ema_decay=0.9)
    advance(state, 5)
    average = {name: tensor.clone() for name, tensor in state.ema.average.items()}
    path = checkpoint.save(tmp_path, state)
    advance(state, 5)
    checkpoint.load_weights(path, state)
    for name, tensor in average.items():
        assert torch.equal(state.weights[name].detach(), tensor)


def test_state_trees_come_back_as_they_were() -> None:
    tree = {
        "state": {0: {"step": torch.tensor(3.0), "moment": torch.arange(6).view(2, 3).to(torch.uint8)}, 7: {}},
        "groups": [
            {"betas": (0.9, 0.99), "lr": 0.1 + 0.2, "limit": math.inf, "none": None, "flag": True, "params": [0, 7]}
        ],
        "half": torch.randn(3).bfloat16(),
    }
    plain, tensors = pack(tree)
    import json

    assert same(unpack(json.loads(json.dumps(plain)), tensors), tree)
    with pytest.raises(TypeError, match="object"):
        pack({"a": object()})
