import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from training_fixtures import quick
from warm_processes import all_ended, both_ended, free_port

from adapters.family.load import load_lm
from configs.errors import UserError
from configs.train import TrainSettings
from configs.tree import to_yaml
from data_prep.base_files import resolve_base
from finetune.precision import Precision
from finetune.run_log import read_log
from finetune.sharded import check_sharding, shard
from finetune.train import train

WHERE_IT_IS = """
import json, os, sys
from pathlib import Path
Path(sys.argv[1], os.environ["RANK"]).write_text(json.dumps(dict(os.environ)))
"""
TRAINS = "import sys; from finetune.cli import main; sys.exit(main())"


def as_launched(folder: Path) -> list[dict[str, str]]:
    """What Accelerate's launcher tells each of two processes by their environments."""
    (folder / "where.py").write_text(WHERE_IT_IS)
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1"]
    launch += ["--num_processes", "2", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launch += ["--main_process_port", str(free_port()), str(folder / "where.py"), str(folder)]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(launch, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = [json.loads((folder / rank).read_text()) for rank in ("0", "1")]
    return [{**one, "TORCHELASTIC_USE_AGENT_STORE": "False"} for one in told]  # the launcher's own has ended


def train_in_two(data: Path, run: Path, settings: TrainSettings) -> None:
    """The run of two processes."""
    config = run.with_name("two.yaml")
    config.write_text(to_yaml(settings))
    words = ["train", data, run, "--config", config]
    codes, told = all_ended(TRAINS, *words, folder=run.parent, environments=as_launched(run.parent))
    assert codes == [0, 0], told


def test_two_processes_equal_one(tiny_data: Path, tmp_path: Path) -> None:
    """Two processes on one clip at a time against one on two: the same clips in every step, the same adapter; and the
    second process holds on to the pieces that the first one played.
    """
    prior = {"prior_share": 0.4, "prior_prompts": ["slow piano", "loud organ"], "prior_pieces": 2}
    settings = quick(steps=4, batch_size=1, accumulation=2, max_clip_sec=0.8, condition_dropout=0.3, **prior)
    train_in_two(tiny_data, tmp_path / "two", settings)
    train(tiny_data, tmp_path / "one", quick(**{**settings.model_dump(exclude_unset=True), "batch_size": 2}))
    two, one = (read_log(tmp_path / name / "log.jsonl") for name in ("two", "one"))
    assert [line["kind"] for line in two] == [line["kind"] for line in one]
    for ours, theirs in zip(two, one, strict=True):
        if ours["kind"] in ("step", "eval", "base"):
            torch.testing.assert_close(ours["codebooks"], theirs["codebooks"], rtol=1e-5, atol=0.0)
            torch.testing.assert_close(ours.get("prior"), theirs.get("prior"), rtol=1e-3, atol=1e-6)
        if ours["kind"] == "step":
            assert ours["clips"] == theirs["clips"] == 4
            torch.testing.assert_close(ours["grad_norm"], theirs["grad_norm"], rtol=1e-4, atol=0.0)
    left, right = (load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("two", "one"))
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-6)
    assert max(float(tensor.abs().max()) for name, tensor in left.items() if "lora_B" in name) > 1e-3


def test_a_base_spread_over_two_processes_learns_as_one_does(tiny_data: Path, tmp_path: Path) -> None:
    """Each holds half of every layer; micro-batches that hold on to the base fall to one process and not the other."""
    more = {"steps": 3, "accumulation": 3, "max_clip_sec": 0.8, "condition_dropout": 0.3, "prior_share": 0.4}
    more["prior_pieces"] = 0
    config = tmp_path / "two.yaml"
    config.write_text(to_yaml(quick(**more, batch_size=1, shard_base=True)))
    words = ["train", tiny_data, tmp_path / "two", "--config", config]
    codes, told = both_ended(TRAINS, *words, folder=tmp_path)
    assert codes == [0, 0], told
    train(tiny_data, tmp_path / "one", quick(**more, batch_size=2))
    two, one = (read_log(tmp_path / name / "log.jsonl") for name in ("two", "one"))
    steps = [[line for line in log if line["kind"] in ("step", "eval", "base")] for log in (two, one)]
    for ours, theirs in zip(*steps, strict=True):
        torch.testing.assert_close(ours["codebooks"], theirs["codebooks"], rtol=1e-5, atol=0.0)
        if ours["kind"] == "step":
            torch.testing.assert_close(ours["grad_norm"], theirs["grad_norm"], rtol=1e-4, atol=0.0)
            assert "prior" in ours
            torch.testing.assert_close(ours["prior"], theirs["prior"], rtol=1e-3, atol=1e-7)
    left, right = (load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("two", "one"))
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-6)


def test_each_process_holds_its_share_of_every_layer() -> None:
    """In a process group of two whose other process does not exist: its messages are never answered, and not needed."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    lm = load_lm(resolve_base("debug"))
    whole = sum(parameter.numel() for block in lm.blocks for parameter in block.parameters())
    torch.distributed.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    try:
        shard(lm, SimpleNamespace(device=torch.device("cpu"), num_processes=2))  # pyright: ignore[reportArgumentType]
        mine = sum(p.to_local().numel() for block in lm.blocks for p in block.parameters())  # pyright: ignore
    finally:
        torch.distributed.destroy_process_group()
    assert mine == whole // 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "one process only"),
        ({"lora": {"dora": True}}, "DoRA"),
        ({"lora": {"init": "pissa"}}, "lora.init pissa"),
        ({"memory": "10gb"}, "--memory"),
        ({"base_weights": "nf4"}, "nf4"),
        ({"prior_prompts": ["jazz"], "prior_share": 0.5}, "prior_prompts"),
    ],
)
def test_what_a_spread_base_cannot_do_is_refused(changes: dict, words: str) -> None:
    settings = TrainSettings(**{"shard_base": True, **changes})
    precision = Precision("cpu", "bf16", "nf4" if settings.base_weights == "nf4" else "bf16")
    with pytest.raises(UserError, match=words):
        check_sharding(settings, precision, n_processes=2 if changes else 1)


OUT_OF_MEMORY = """
import os, sys
import torch
from finetune import MODULE
from finetune.cli import main

plain, calls = MODULE.codebook_sums, []

def runs_out(logits, labels):
    calls.append(1)
    if len(calls) >= 2 and os.environ["RANK"] == "1":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    return plain(logits, labels)

MODULE.codebook_sums = runs_out
sys.exit(main())
"""


@pytest.mark.parametrize(("module", "what"), [("step", "too small for this run"), ("evaluate", "out of memory")])
def test_out_of_memory_in_one_process_ends_all_of_them(tiny_data: Path, tmp_path: Path, module: str, what: str) -> None:
    """No launcher watches over these two: the one that waits for the other would wait for a day."""
    config = tmp_path / "two.yaml"
    config.write_text(to_yaml(quick(steps=4, batch_size=1, accumulation=2, max_clip_sec=0.8)))
    program = OUT_OF_MEMORY.replace("MODULE", module)
    codes, told = both_ended(program, "train", tiny_data, tmp_path / "run", "--config", config, folder=tmp_path)
    assert codes == [2, 2], told
    assert what in told[1] and (module == "evaluate" or "--resume" in told[1])
    assert "stopped, because another process did: process 1" in told[0] and "--resume" in told[0]
