"""A prepared dataset becomes an adapter: set-up in numbered phases, then one loop, then the result.

Read from top to bottom. What a step computes is in `step`, what is kept between steps in `checkpoint.State`, what makes
the adapter folder out of the last state in `finish`.
"""

import signal
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from adapters.family.load import load_lm
from adapters.family.recompute import enable_checkpointing
from adapters.lora import TrainableAdapter, attach
from configs.train import TrainSettings
from data_prep.base_files import BaseFiles, resolve_base
from data_prep.condition_sources.registry import sources_for
from data_prep.families import module_kind
from data_prep.lm_spec import LMSpec
from data_prep.prepared import PreparedDataset
from finetune import lean_lora, optimizers
from finetune.added_infos import added_infos
from finetune.alarm import Alarm
from finetune.bare_base import ask_bare_base
from finetune.batches import clips_of, held_out
from finetune.checkpoint import State, load
from finetune.dataset_fit import base_fingerprint, check_fit, with_base
from finetune.ema import Ema
from finetune.finish import Outcome, finish, gather
from finetune.judge.after_training import evaluate_run
from finetune.memory.adjust import bound, bounds_of, fitted_to, measure_and_adjust
from finetune.memory.step_plan import checkpointed_layers, partly_recomputed
from finetune.moving import moved_facts, moved_for_run
from finetune.out_of_memory import accumulate_or_shrink
from finetune.precision import Precision, settle
from finetune.prior import check_prior, with_prior
from finetune.processes import of_first_process, start_processes, without_fp32_outputs
from finetune.run import open_run
from finetune.run_folder import (
    RunFolder,
    asked_before,
    checkpoint_to_resume,
    describe,
    only_one,
    refuse_changes,
    refuse_used,
    resumed_settings,
    saved_settings,
    standing_on,
)
from finetune.run_log import check_loggers
from finetune.run_progress import RunProgress
from finetune.schedule import factor, jump, total_steps
from finetune.sharded import check_sharding, shard, without_previews
from finetune.step import Learner, accumulate
from finetune.stop import Stopped, StopWish
from finetune.trigger_start import start_from_trigger


def train(data: Path, run_path: Path, settings: TrainSettings, *, resume: bool = False) -> Path:
    """Train an adapter and return its folder.

    Raises:
        UserError: something does not fit, or the loss stopped being a number (after saving).
        Stopped: Ctrl-C or SIGTERM (after saving).
    """
    with ExitStack() as stack:
        outcome = learn(data, run_path, settings, resume, stack)  # the model is let go here
        folder = finish(outcome)
        outcome.run.accelerator.end_training()
    if outcome.run.accelerator.is_main_process:
        say = outcome.run.progress.say
        evaluate_run(run_path, wanted=settings.evaluate, trained_sec=outcome.trained_sec, say=say)
    return folder


def learn(data: Path, run_path: Path, settings: TrainSettings, resume: bool, stack: ExitStack) -> Outcome:
    """From the settings to the last weights. What is to be closed or undone at the very end goes onto the stack."""
    # 1. The settings: of this call, or of the run that goes on
    folder = RunFolder(run_path)
    dataset = PreparedDataset(data)
    checkpoint = checkpoint_to_resume(folder) if resume else None
    asked = asked_before(folder) if resume else settings.model_dump(mode="json", exclude_unset=True)
    before = saved_settings(folder) if resume else None
    settings = with_base(resumed_settings(folder, settings) if resume else settings, dataset)
    clips = clips_of(dataset, "train")
    settings = with_prior(settings, dataset, clips)
    check_prior(settings, dataset, clips)

    # 2. The machine: device, arithmetic, processes
    precision = settle(settings)
    optimizers.check(settings, precision.device)
    check_loggers(settings)
    accelerator = start_processes(precision)
    check_sharding(settings, precision, accelerator.num_processes)
    if settings.shard_base:
        settings = without_previews(settings)
    first = accelerator.is_main_process
    per_step = settings.batch_size * settings.accumulation * accelerator.num_processes

    # 3. The base, whether the dataset belongs to it, and what fits into memory
    assert settings.base is not None
    with accelerator.main_process_first():
        files = moved_for_run(resolve_base(settings.base, settings.revision), dataset, settings)
    check_fit(dataset, files)
    added = added_infos(dataset, settings, files.spec)
    cap = bound(settings, precision)
    if cap is not None and not resume:
        settings = of_first_process(fitted_to(settings, files, clips, precision, cap, added.values()).settings)
        precision = settle(settings)
    standing = standing_on(dataset, files, base_fingerprint(files), per_step)

    # 4. The run's folder: new, or the same run as before
    if first:
        stack.enter_context(only_one(folder))
        refuse_changes(folder, settings, standing) if resume else refuse_used(folder)
        describe(folder, settings, standing, asked)
    accelerator.wait_for_everyone()

    # 5. How long clips are, which are held out, how many steps there are
    max_frames = round(settings.max_clip_sec * files.spec.frame_rate)
    longest = min(max_frames, max(clip.n_frames for clip in clips))
    validation = held_out(clips_of(dataset, "validation"), max_clips=settings.eval.max_clips, max_frames=max_frames)
    total = total_steps(settings, len(clips), per_step)

    # 6. The base, asked while nothing is attached to it; every step of the run is known from here on
    done = int(checkpoint.name.split("-")[1]) if checkpoint else 0
    progress = RunProgress(total, done, shown=first)
    run = open_run(
        folder, settings, accelerator, dataset, validation, files, progress, from_step=done if checkpoint else None
    )
    if run.log is not None:
        stack.callback(run.log.close)
    stack.callback(run.saver.close)
    if before is not None and (words := jump(before, settings, len(clips), per_step, done)):
        progress.say(words)
    place = "cpu" if settings.shard_base else accelerator.device
    lm = load_lm(files, weights=precision.base_weights, device=place, compute_dtype=precision.dtype)
    if settings.shard_base:
        lm = shard(lm, accelerator)
    bare = ask_bare_base(lm, run, files, clips, longest, resumed=checkpoint is not None)
    stream = bare.stream(clips, run, max_frames)

    # 7. The adapter, its optimizer, and where the run stands
    adapter = attach(lm, settings.lora, settings.seed)
    start_from_trigger(adapter, clips, bare.source, bare.pieces.states, settings.trigger_rows)
    if added:
        adapter.add_conditions(added, settings.seed)
    lean_lora.install(lm)
    layers = lm.spec.layers
    enable_checkpointing(lm, checkpointed_layers(settings, layers), partly_recomputed(settings, layers))
    optimizer = optimizers.build(adapter.parameters().items(), settings.optim, settings.lora.plus_ratio)
    placing = False if settings.shard_base else None
    model = accelerator.prepare_model(lm, device_placement=placing, evaluation_mode=settings.shard_base)
    optimizer = accelerator.prepare_optimizer(optimizer)
    if not precision.autocast:
        without_fp32_outputs(lm)
    ema = Ema(adapter.parameters(), settings.ema_decay)
    state = State(adapter.parameters(), optimizer, ema, accelerator.scaler, bare.position)
    if checkpoint is not None:
        load(checkpoint, state)
    alarm = Alarm(accelerator)
    stack.push(alarm.leaving)
    learner = Learner(
        lm,
        model,
        list(state.weights.values()),
        bare.source,
        accelerator,
        settings,
        max_frames if cap is None else longest,
        adapter.disabled,
        alarm,
        settings.shard_base,
    )
    about = facts(files, precision, adapter, len(clips), len(validation), total, per_step, state)
    run.introduce({**about, **moved_facts(files), **condition_facts(files.spec, dataset)})

    if cap is not None:
        bounds = bounds_of(settings, files, clips, precision, cap, added.values())
        measure_and_adjust(learner, [*clips, *bare.pieces.clips], bounds, progress.say)

    # 8. The loop
    stop = stack.enter_context(StopWish())
    stack.enter_context(progress)
    model.train()
    while state.position.step < total and not run.has_lost_patience(state.position):
        started = time.perf_counter()
        step = state.position.step
        lr = optimizers.set_lr(optimizer, factor(step, total, settings.optim))
        draws = stream.step(step, per_step)
        gradients = accumulate_or_shrink(accumulate, learner, draws, step, lambda: stop.signal != 0, progress.say)
        if gradients is None:
            break
        run.refuse_broken(gradients, draws, state)
        optimizer.step()
        optimizer.zero_grad()
        if not accelerator.optimizer_step_was_skipped:
            ema.update()
        run.count(state.position, gradients, draws, lr, started)
        run.look_and_save(lm, state, last=state.position.step == total)
        if gradients.stop:
            break

    # 9. Stopped, or the result
    run.save(state)
    if state.position.step < total and not run.has_lost_patience(state.position):
        raise Stopped(stop.signal or signal.SIGINT)
    outcome = gather(run, lm, adapter, files, precision, state)
    accelerator.free_memory()
    return outcome


def condition_facts(spec: LMSpec, dataset: PreparedDataset) -> dict[str, str]:
    """How many clips have what the base follows besides words; said loudly where none has."""
    rows, said = dataset.clips("train"), {}
    for kind, _ in sources_for(spec):
        count = sum(dataset.condition(kind.name, row.id) is not None for row in rows)
        none = f": the base may unlearn to follow one; `woodshed prep` makes them (--{kind.name})"
        said[kind.name] = f"{count} of {len(rows)} clips have one" + ("" if count else none)
    return said


def facts(
    files: BaseFiles,
    precision: Precision,
    adapter: TrainableAdapter,
    n_clips: int,
    n_held_out: int,
    total: int,
    per_step: int,
    state: State,
) -> dict[str, str]:
    """What a person wants to know before the first step."""
    kinds = Counter(module_kind(module) for module in adapter.modules)
    learns = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    step = state.position.step
    return {
        "base": f"{files.id}, weights in {precision.base_weights}, {precision.arithmetic} on {precision.device}",
        "clips": f"{n_clips} to learn from, {n_held_out} held out",
        "adapter": f"{adapter.n_trainable:,} weights in {len(adapter.modules)} modules: {learns}",
        "steps": f"{total} of {per_step} clips: {total * per_step / n_clips:.1f} times through the clips"
        + (f", going on after step {step}" if step else ""),
    }
