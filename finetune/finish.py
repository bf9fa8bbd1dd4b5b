"""The last state of a run becomes an adapter folder, with proof and report. It starts when the model is gone again."""

import copy
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from adapters import adapter_files
from adapters.device_memory import let_go
from adapters.family.lm import LM
from adapters.fit import describe_base, describe_codec
from adapters.lora import TrainableAdapter
from adapters.low_rank import LowRank
from adapters.metadata import (
    DataInfo,
    HeldOut,
    TrainingInfo,
    Woodshed,
    in_limits,
    license_of,
    public_id,
    version_of,
)
from adapters.moved import info_of
from adapters.shareable import MAX_SAMPLES
from adapters.whole_weights.layers import values_of
from configs.errors import UserError
from data_prep.base_files import BaseFiles
from data_prep.safe_write import write_bytes
from finetune.added_infos import added_infos
from finetune.batches import Draw, clips_of, held_out
from finetune.checkpoint import State, load_weights
from finetune.evaluate import mean
from finetune.precision import Precision
from finetune.preview import PreviewFile, own_prompts, read_previews
from finetune.proof import CLIPS, Proof, prove, witness_of
from finetune.report import write_report
from finetune.run import Run
from finetune.run_folder import PACKAGES

if TYPE_CHECKING:
    from adapters.added_conditions.frames import FrameCondition
    from adapters.metadata import AddedInfo
    from data_prep.prepared import PreparedDataset


REPEAT = "run the same command with --resume: training is done, only this last stage comes again."


@dataclass(frozen=True)
class Outcome:
    """What training leaves when the model is let go."""

    run: Run
    files: BaseFiles
    precision: Precision
    updates: dict[str, LowRank]
    witness: Tensor
    step: int
    """The step whose weights these are."""
    trained_sec: float
    """How long the run's steps took, over all its starts."""
    adapter_loss: list[float]
    """Their held-out loss; empty without a validation split."""
    base_loss: list[float]
    added: "dict[str, FrameCondition]" = field(default_factory=dict)
    """Copies of the conditions that it adds to the base's own."""
    added_infos: "dict[str, AddedInfo]" = field(default_factory=dict)
    """How woodshed.json describes these."""
    whole: dict[str, Tensor] = field(default_factory=dict)
    """Copies of what is new in a base that was moved."""


def gather(
    run: Run, lm: LM, adapter: TrainableAdapter, files: BaseFiles, precision: Precision, state: State
) -> Outcome:
    """Choose the weights, put them in the model, preview them, and take them out."""
    position = state.position
    use_best = run.settings.checkpoint.final == "best" and position.best_step not in (None, position.step)
    if use_best:
        load_weights(run.folder.checkpoints / f"checkpoint-{position.best_step}", state)
    step = position.best_step if use_best and position.best_step is not None else position.step
    with nullcontext() if use_best else state.ema.applied():
        witness = witness_of(lm, proof_draws(run), run.dataset, run.accelerator)
        if run.previews is not None and all(piece.step != step for piece in read_previews(run.folder.samples)):
            run.write("preview", position.step, {"files": run.previews.make(lm, step)})
        updates = adapter.updates()
        added = {name: copy.deepcopy(module).cpu() for name, module in adapter.added.items()}
        whole = values_of(adapter.whole)
    infos = added_infos(run.dataset, run.settings, files.spec) if added else {}
    loss = position.best_loss if use_best else position.last_loss
    base_loss, sec = position.base_loss, position.trained_sec
    return Outcome(run, files, precision, updates, witness, step, sec, loss, base_loss, added, infos, whole)


def proof_draws(run: Run) -> list[Draw]:
    """A few of the held-out clips; of the training clips where there are none."""
    if run.validation:
        return list(run.validation[:CLIPS])
    max_frames = round(run.settings.max_clip_sec * run.frame_rate)
    return held_out(clips_of(run.dataset, "train"), max_clips=CLIPS, max_frames=max_frames)


def finish(outcome: Outcome) -> Path:
    """Write adapter, proof and report, and say how to use them; returns the adapter's folder."""
    run = outcome.run
    folder = run.folder.adapter
    if not run.accelerator.is_main_process:
        return folder
    let_go()  # the model that was trained
    pieces = read_previews(run.folder.samples)
    samples = samples_of(pieces, outcome.step)
    base_samples = {prompt: piece for prompt, piece in samples_of(pieces, 0).items() if prompt in samples}
    adapter_files.save(
        folder,
        outcome.updates,
        describe(outcome),
        dropout=run.settings.lora.dropout,
        samples={prompt: sample_name(piece) for prompt, piece in samples.items()},
        base_samples={prompt: sample_name(piece) for prompt, piece in base_samples.items()},
        overwrite=True,
        again=REPEAT,
        added=outcome.added,
        whole=outcome.whole,
    )
    with adapter_is_safe(folder):
        _copy_samples(run.folder.samples, folder, [*samples.values(), *base_samples.values()])
        proof_and_report(outcome)
    return folder


@contextmanager
def adapter_is_safe(folder: Path) -> Iterator[None]:
    """Around what comes after the adapter: an error says that the adapter is there, and how the rest is done again.

    Raises:
        UserError: in place of another one.
    """
    try:
        yield
    except UserError as error:
        fix = f"The adapter is whole: {folder}. {error.fix}"
        raise UserError(error.what, where=error.where, fix=fix) from error
    except torch.OutOfMemoryError as error:
        raise UserError(
            "Memory ran out while the adapter was compared with its base.",
            where=str(error).splitlines()[0],
            fix=f"The adapter is whole: {folder}. For its proof and report {REPEAT}",
        ) from error


def proof_and_report(outcome: Outcome) -> None:
    """Load the adapter afresh, compare, write the report, and say how to use it.

    Raises:
        UserError: the disk is full or refuses.
    """
    run = outcome.run
    folder = run.folder.adapter
    proof = prove(
        folder,
        outcome.files,
        outcome.precision,
        run.accelerator,
        run.dataset,
        proof_draws(run),
        outcome.witness,
        held_out=bool(run.validation),
    )
    run.write("proof", outcome.step, asdict(proof))
    write_report(run.folder, run.settings, proof, outcome.step, public_id(outcome.files), again=REPEAT)
    for line in (*proof_lines(proof), "", *snippet(outcome), "", f"report: {run.folder.report}"):
        run.progress.say(line)


def samples_of(pieces: Sequence[PreviewFile], step: int) -> dict[str, PreviewFile]:
    """What was played for each prompt at a step; of as many prompts as may be shared together with the base's."""
    return dict([(piece.prompt, piece) for piece in pieces if piece.step == step][: MAX_SAMPLES // 2])


def sample_name(piece: PreviewFile) -> str:
    """Where a piece stands in the adapter's folder; step 0 is the base's, with the same seeds."""
    path = Path(piece.file)
    return f"samples/{path.stem}{'' if piece.step else '-base'}{path.suffix}"


def describe(outcome: Outcome) -> Woodshed:
    """What the adapter says of itself: no path, recordings as hashes."""
    run, files = outcome.run, outcome.files
    moved = info_of(files.move)
    settings = run.settings.model_dump(mode="json", exclude={"loggers", "preview", "device"})
    loss = None
    if outcome.adapter_loss and outcome.base_loss and isfinite(mean(outcome.adapter_loss) + mean(outcome.base_loss)):
        n_clips = len(run.validation)
        loss = HeldOut(adapter=mean(outcome.adapter_loss), base=mean(outcome.base_loss), n_clips=n_clips)
    return Woodshed(
        **in_limits(
            run.folder.path.resolve().name,
            run.dataset.trigger,
            run.settings.preview.prompts or own_prompts(run.dataset),
        ),
        base=describe_base(files, outcome.updates),
        codec=describe_codec(files),
        data=describe_data(run.dataset),
        training=TrainingInfo(steps=outcome.step, settings=settings | {"base": public_id(files)}),
        held_out=loss,
        conditions=list(outcome.added_infos.values()),
        moved=moved,
        schema_version=version_of(list(outcome.added_infos.values()), moved),
        license=license_of(files.id),
        versions={name: version(name) for name in PACKAGES if name in ("torch", "transformers", "peft", "accelerate")},
    )


def describe_data(dataset: "PreparedDataset") -> DataInfo:
    """Counts, seconds and hashes."""
    train = dataset.clips("train")
    return DataInfo(
        n_clips=len(train),
        n_validation_clips=len(dataset.clips("validation")),
        audio_sec=sum(row.duration_sec for row in train),
        source_hashes=sorted({row.source_sha256 for row in train}),
    )


def proof_lines(proof: Proof) -> list[str]:
    """The proof in a few lines."""
    lines = [
        f"{norm.kind}: ‖ΔW‖ {norm.delta:.3g}, {norm.delta / norm.weight:.2%} of the weights it changes"
        for norm in proof.norms
    ]
    where = ("held-out" if proof.held_out else "training") + (" clip" if proof.n_clips == 1 else " clips")
    lines.append(f"predictions moved by {mean(proof.divergence):.4f} nats from the base, on {proof.n_clips} {where}")
    off = f"up to {proof.fresh_difference:.1e} of the largest" if proof.fresh_difference else "to the bit"
    if proof.holds:
        lines.append(f"loaded afresh it gives the same logits, {off}")
    else:
        lines.append(
            f"WARNING: loaded afresh its logits differ by {proof.fresh_difference:.1e} of the largest from those that "
            f"training ended with; rounding explains {proof.tolerance:.0e}. The adapter is saved: listen to it before "
            "you share it, and try it with the base in fp32."
        )
    if not proof.does_something:
        lines.append("Every ΔW is zero: this adapter does nothing. Train for longer, or with a higher --optim.lr.")
    return lines


def snippet(outcome: Outcome) -> list[str]:
    """How plain peft and transformers use the adapter."""
    prompt = next(iter(outcome.run.settings.preview.prompts or own_prompts(outcome.run.dataset)), "")
    files, path = outcome.files, str(outcome.run.folder.adapter)
    if outcome.added_infos:  # plain peft would load half of it
        return [f'woodshed sample {path} "{prompt}" --with RECORDING --out out/']
    if files.move:  # plain peft would play it another way
        return [f"woodshed sample {shlex.quote(path)} {shlex.quote(prompt)} --out out/"]
    base = str(files.folder) if files.id in ("debug", "starter") else files.id  # names that only Woodshed knows
    model_class = files.format.transformers_class
    if model_class is None:
        return [f"woodshed sample {shlex.quote(path)} {shlex.quote(prompt)} --out out/"]
    return [
        "from peft import PeftModel",
        f"from transformers import AutoProcessor, {model_class}",
        "",
        f"base = {base!r}",
        f"model = {model_class}.from_pretrained(base)",
        f"model = PeftModel.from_pretrained(model, {path!r})",
        f"inputs = AutoProcessor.from_pretrained(base)(text=[{prompt!r}], return_tensors='pt')",
        "audio = model.generate(**inputs, do_sample=True, guidance_scale=3.0, max_new_tokens=500)  # 10 s at 50 Hz",
    ]


def _copy_samples(source: Path, folder: Path, pieces: list[PreviewFile]) -> None:
    for piece in pieces:
        write_bytes(folder / sample_name(piece), (source / piece.file).read_bytes(), again=REPEAT)
