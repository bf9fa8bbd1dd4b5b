"""Prior preservation: which clips hold on to the base, what they pull at, and that it makes a trigger a switch."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from test_loss import learner_on
from torch.testing import assert_close
from training_fixtures import TRIGGER, quick

from adapters import adapter_files
from adapters.conditions import Conditions
from adapters.decode.sampling import Knobs, Sampling, guide
from adapters.family.load import load_lm
from adapters.lora import attach_updates, disabled
from adapters.pattern import IGNORE
from adapters.sampler import Sampler
from configs.errors import UserError
from configs.sample import SampleSettings
from configs.train import TrainSettings
from data_prep.base_files import resolve_base
from data_prep.captions import without_trigger
from data_prep.lm_spec import ConditionKind
from data_prep.prepared import PreparedDataset
from data_prep.text_encoder import TextEncoder
from finetune import step
from finetune.batches import Clip, Draw, Stream, clips_of, collate
from finetune.evaluate import logits_of
from finetune.loss import codebook_sums
from finetune.precision import Precision
from finetune.prior import check_prior, divergence_sums
from finetune.prior_pieces import WithPriorPieces, load, play
from finetune.processes import start_processes
from finetune.proof import divergence_sums as plain_divergence
from finetune.run_folder import RunFolder, saved_settings
from finetune.step import Gradients, Learner, accumulate
from finetune.train import train

CLIPS = [Clip(f"clip{n:02}", 40, ("loud, in my style", "fast, in my style"), ("loud", "fast")) for n in range(20)]


def test_the_trigger_is_taken_out_and_nothing_else() -> None:
    assert without_trigger("slow piano, in my style", "in my style") == "slow piano"
    assert without_trigger("In my style, slow piano.", "in my style") == "slow piano"
    assert without_trigger("slow, in my style, piano", "in my style") == "slow, piano"
    assert without_trigger("in my style", "in my style") == ""
    assert without_trigger("begin my styles", "in my style") == "begin my styles"
    assert without_trigger("slow piano", "") == "slow piano"


def test_a_share_of_clips_is_heard_without_the_trigger() -> None:
    draws = Stream(CLIPS, seed=1, max_frames=40, condition_dropout=0.2, prior_share=0.5).step(0, 400)
    prior = [draw for draw in draws if draw.prior]
    assert 0.5 < len(prior) / len(draws) < 0.7  # 0.5, and of the rest what has no caption
    assert {draw.caption for draw in prior} == {None, "loud", "fast"}
    assert {draw.caption for draw in draws if not draw.prior} == {"loud, in my style", "fast, in my style"}


def test_without_it_nothing_changes() -> None:
    told = Stream(CLIPS, seed=1, max_frames=40, condition_dropout=0.2).step(0, 400)
    assert not any(draw.prior for draw in told)
    assert sum(draw.caption is None for draw in told) > 40


def test_the_divergence_is_the_plain_one_and_so_is_its_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, base = (torch.randn(2, 3, 5, 7, generator=generator) for _ in range(2))
    labels = torch.randint(7, (2, 3, 5), generator=generator)
    labels[0, :, 3:] = IGNORE
    logits.requires_grad_()
    sums = divergence_sums(logits, base, labels)
    assert_close(sums, plain_divergence(base, logits.detach(), labels != IGNORE).float())
    weights = torch.tensor([1.0, 0.5, 2.0])
    (grad,) = torch.autograd.grad((sums * weights).sum(), logits)
    p, q = base.log_softmax(-1), logits.log_softmax(-1)
    plain = (((p.exp() * (p - q)).sum(-1) * (labels != IGNORE)).sum((0, 2)) * weights).sum()
    assert_close(grad, torch.autograd.grad(plain, logits)[0])
    assert divergence_sums(base, base, labels).abs().max() < 1e-5


def test_the_divergence_of_what_is_sampled_with_guidance_and_its_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, base, null = (torch.randn(2, 3, 5, 7, generator=generator) for _ in range(3))
    labels = torch.randint(7, (2, 3, 5), generator=generator)
    labels[1, :, 2:] = IGNORE
    logits.requires_grad_()
    knobs = Knobs(Sampling(guidance=2.5), 3, 7, torch.device("cpu"))

    def sampled(shown: torch.Tensor) -> torch.Tensor:
        rows = torch.cat([shown.transpose(1, 2).flatten(0, 1), null.transpose(1, 2).flatten(0, 1)])
        return guide(rows, knobs, 10, 2).unflatten(0, (2, 5)).transpose(1, 2)

    sums = divergence_sums(logits, base, labels, null, 2.5)
    weights = torch.tensor([1.0, 0.5, 2.0])
    p, q = sampled(base).log_softmax(-1), sampled(logits).log_softmax(-1)
    plain = ((p.exp() * (p - q)).sum(-1) * (labels != IGNORE)).sum((0, 2))
    assert_close(sums, plain)
    assert_close(
        torch.autograd.grad((sums * weights).sum(), logits)[0], torch.autograd.grad((plain * weights).sum(), logits)[0]
    )
    assert_close(divergence_sums(logits, base, labels, null, 1.0), divergence_sums(logits, base, labels))


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_step_weighs_both_kinds_of_clips_alike(guidance: float, mono_base: Path, tiny_data: Path) -> None:
    """Against the definition: each clip alone, all cells added up, divided by their count."""

    def one_step(batch_size: int) -> tuple[Learner, list[Draw], Gradients]:
        how = {"batch_size": batch_size, "accumulation": 6 // batch_size, "prior_guidance": guidance}
        learner = learner_on(mono_base, tiny_data, **how)
        clips = clips_of(PreparedDataset(tiny_data), "train")
        draws = Stream(clips, seed=1, max_frames=60, condition_dropout=0.1, prior_share=0.4).step(0, 6)
        learner.without_adapter = partial(disabled, learner.lm)
        found = accumulate(learner, draws, 0, lambda: False)
        assert found is not None
        return learner, draws, found

    learner, draws, found = one_step(1)
    assert {draw.prior for draw in draws} == {False, True}
    sums = {False: torch.zeros(()), True: torch.zeros(())}
    for draw in draws:
        batch = collate([draw], learner.dataset, learner.lm.spec)
        inputs, labels = learner.lm.inputs_and_labels(batch.codes, batch.n_frames)
        logits = learner.lm(inputs, batch.conditions)
        with torch.no_grad(), disabled(learner.lm):
            base = learner.lm(inputs, batch.conditions)
            null = learner.lm(inputs, Conditions.null(1, learner.lm.spec))
        held = divergence_sums(null + (logits - null) * guidance, null + (base - null) * guidance, labels)
        own = held if draw.prior else codebook_sums(logits, labels)
        sums[draw.prior] = sums[draw.prior] + own.sum()
    cells = 4 * sum(draw.n_frames for draw in draws)
    whole = torch.autograd.grad((sums[False] + sums[True]) / cells, learner.weights)
    music = 4 * sum(draw.n_frames for draw in draws if not draw.prior)
    for batch_size in (1, 3, 6):
        learner, _, found = one_step(batch_size)
        assert_close([weight.grad for weight in learner.weights], list(whole), rtol=1e-4, atol=1e-7)
        assert found.loss == pytest.approx(sums[False].item() / music, rel=1e-5)
        assert found.prior == pytest.approx(sums[True].item() / (cells - music), rel=1e-4)


@pytest.mark.parametrize(("guidance", "passes"), [(1.0, 2), (3.0, 3)])
def test_the_base_is_asked_without_conditions_only_for_guidance(
    guidance: float, passes: int, mono_base: Path, tiny_data: Path
) -> None:
    learner = learner_on(mono_base, tiny_data, batch_size=6, accumulation=1, prior_guidance=guidance)
    learner.without_adapter = partial(disabled, learner.lm)
    heard: list[bool] = []
    learner.lm.register_forward_hook(lambda _, given, __: heard.append(bool(given[1]["text"].mask.any())))
    clips = clips_of(PreparedDataset(tiny_data), "train")
    draws = [Draw(clip.id, clip.bare[0], 0, 20, prior=True) for clip in clips]
    assert accumulate(learner, draws, 0, lambda: False) is not None
    assert heard == ([True, False, True] if guidance != 1 else [True, True])
    spec, strengths = learner.lm.spec, ConditionKind("strengths", 3, per="clip")
    learner.lm.spec = replace(spec, conditions=(*spec.conditions, strengths))
    assert accumulate(learner, draws, 1, lambda: False) is not None
    assert len(heard) == passes + 2, "a model whose guidance is a condition is compared as it is"


def test_a_run_of_an_older_version_goes_on_as_it_began(tiny_data: Path, tmp_path: Path) -> None:
    settings = quick(steps=2, prior_share=0.5, prior_pieces=0, prior_guidance=1.0)
    train(tiny_data, tmp_path / "run", settings)
    config = tmp_path / "run" / "config.yaml"
    told = config.read_text()
    assert "prior_guidance: 1.0" in told
    config.write_text("".join(line for line in told.splitlines(keepends=True) if "prior_guidance" not in line))
    assert saved_settings(RunFolder(tmp_path / "run")).prior_guidance == 1
    train(tiny_data, tmp_path / "run", TrainSettings(steps=3), resume=True)
    with pytest.raises(UserError, match="prior_guidance"):
        train(tiny_data, tmp_path / "run", TrainSettings(steps=4, prior_guidance=3.0), resume=True)


def test_without_the_trigger_the_base_stays(mono_base: Path, tiny_data: Path, tmp_path: Path) -> None:
    dataset = PreparedDataset(tiny_data)
    clips = clips_of(dataset, "train")
    bare = [Draw(clip.id, clip.bare[0], 0, clip.n_frames) for clip in clips]
    told = [Draw(clip.id, clip.captions[0], 0, clip.n_frames) for clip in clips]
    moved = {}
    for share in (0.0, 0.5):
        settings = quick(steps=60, prior_share=share, prior_pieces=0, optim={"lr": 0.02}, eval={"every_steps": 0})
        adapter = train(tiny_data, tmp_path / str(share), settings)
        lm = load_lm(resolve_base(str(mono_base)))
        accelerator = start_processes(Precision("cpu", "fp32", "fp32"))
        before = [torch.cat([x[1].flatten() for x in logits_of(lm, d, dataset, accelerator, 1)]) for d in (bare, told)]
        attach_updates(lm, adapter_files.load(adapter).updates)
        after = [torch.cat([x[1].flatten() for x in logits_of(lm, d, dataset, accelerator, 1)]) for d in (bare, told)]
        moved[share] = [float((a - b).pow(2).mean()) for a, b in zip(after, before, strict=True)]
        lines = [json.loads(line) for line in (tmp_path / str(share) / "log.jsonl").read_text().splitlines()]
        assert any("prior" in line for line in lines if line["kind"] == "step") is (share > 0)
    assert moved[0.5][0] < 0.5 * moved[0.0][0]  # what the base does without the trigger is held
    assert moved[0.5][1] > 2 * moved[0.5][0]  # and with it, the adapter acts


def test_most_of_what_is_held_on_to_is_what_the_base_played() -> None:
    played = [Clip(f"played-{n:02}", 30, (f"prompt {n}",), (f"prompt {n}",)) for n in range(3)]
    shared = {"seed": 1, "max_frames": 40, "condition_dropout": 0.2, "prior_share": 0.5}
    without = Stream(CLIPS, **shared).step(0, 400)
    draws = Stream(CLIPS, **shared, prior_pieces=played).step(0, 400)
    pieces = [draw for draw in draws if draw.clip_id.startswith("played")]
    assert 0.55 < len(pieces) / sum(draw.prior for draw in draws) < 0.75
    assert all(draw.prior and draw.n_frames == 30 for draw in pieces)
    assert {draw.caption for draw in pieces} == {None, "prompt 0", "prompt 1", "prompt 2"}
    assert all(draw.caption in (None, f"prompt {int(draw.clip_id[-2:])}") for draw in pieces)
    assert [a for a, b in zip(draws, without, strict=True) if b not in pieces and a not in pieces] == [
        b for a, b in zip(draws, without, strict=True) if a not in pieces
    ]  # all others are what they were


def test_the_base_plays_once_and_a_resumed_run_hears_the_same(
    mono_base: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [f"slow piano {n}" for n in range(5)]
    optim = {"schedule": "constant", "warmup_steps": 0}  # else the steps to come decide the rate
    settings = quick(
        steps=6, prior_share=0.5, prior_prompts=prompts, prior_pieces=len(prompts), max_clip_sec=0.8, optim=optim
    )
    collated: set[str] = set()
    plain = step.collate

    def noted(draws: list[Draw], *rest):
        collated.update(draw.clip_id for draw in draws)
        return plain(draws, *rest)

    monkeypatch.setattr(step, "collate", noted)
    straight = train(tiny_data, tmp_path / "straight", settings)
    played = load(tmp_path / "straight" / "prior_pieces.safetensors")
    assert played.prompts == prompts
    assert collated & {clip.id for clip in played.clips}
    files = resolve_base(str(mono_base))
    longest = max(clip.n_frames for clip in clips_of(PreparedDataset(tiny_data), "train"))
    n_frames = min(round(0.8 * files.spec.frame_rate), longest)
    assert [codes.shape for codes in played.codes] == [(4, n_frames)] * 5
    base = Sampler.load(
        files, settings=SampleSettings.model_validate({"seed": settings.seed, "device": "cpu", "precision": "fp32"})
    )
    for codes, alone in zip(played.codes, base.codes(prompts, n_frames=n_frames), strict=True):
        assert (codes == alone).all()
    for state, prompt in zip(played.states, prompts, strict=True):
        assert_close(torch.from_numpy(state), TextEncoder.load(files).encode([prompt])[0])

    heard = WithPriorPieces(PreparedDataset(tiny_data), played)
    assert (heard.codes(played.clips[3].id) == played.codes[3]).all()
    assert (heard.text_state(prompts[3]) == played.states[3]).all()
    own = clips_of(PreparedDataset(tiny_data), "train")[0]
    assert (heard.codes(own.id) == PreparedDataset(tiny_data).codes(own.id)).all()
    assert (heard.text_state(own.bare[0]) == PreparedDataset(tiny_data).text_state(own.bare[0])).all()

    train(tiny_data, tmp_path / "halves", settings.model_copy(update={"steps": 3}))
    monkeypatch.setattr("finetune.bare_base.play", lambda *_: pytest.fail("it was played already"))
    again = train(tiny_data, tmp_path / "halves", settings, resume=True)
    left, right = (adapter_files.load(folder).updates for folder in (straight, again))
    assert left.keys() == right.keys()
    for name, update in left.items():
        assert_close(update.delta(), right[name].delta(), rtol=0, atol=0)
    (tmp_path / "halves" / "prior_pieces.safetensors").write_bytes(b"{}")
    with pytest.raises(UserError, match="missing or damaged"):
        train(tiny_data, tmp_path / "halves", settings.model_copy(update={"steps": 8}), resume=True)


def test_pieces_are_played_in_smaller_companies_where_memory_is_small(
    mono_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = resolve_base(str(mono_base))
    lm = load_lm(files)
    prompts = [f"slow piano {n}" for n in range(6)]
    wanted = play(lm, files, prompts, 10, 3, lambda _: None)
    plain, sizes = Sampler._play, []

    def small(self: Sampler, states: list, *how):
        sizes.append(len(states))
        if len(states) > room:
            raise torch.OutOfMemoryError("no room")
        return plain(self, states, *how)

    monkeypatch.setattr(Sampler, "_play", small)
    room = 1
    found = play(lm, files, prompts, 10, 3, lambda _: None)
    assert sizes == [6, 3, 1, 1, 1, 1, 1, 1]  # what is known by then is not tried again
    for ours, theirs in zip(found.codes, wanted.codes, strict=True):
        assert (ours == theirs).all()
    room = 0
    with pytest.raises(UserError, match="too small"):
        play(lm, files, prompts, 10, 3, lambda _: None)


def test_it_needs_a_trigger_and_captions_without_it(tiny_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(tiny_data, folder)
    dataset = PreparedDataset(folder)
    clips = clips_of(dataset, "train")
    wanted, unwanted = TrainSettings(prior_share=0.5), TrainSettings()
    check_prior(wanted, dataset, clips)
    said = {dataset._state_path(caption).name for row in dataset.clips() for caption in row.captions}
    for path in (folder / "text_states").iterdir():
        if path.name not in said:
            path.unlink()
    with pytest.raises(UserError, match="incomplete"):
        check_prior(wanted, PreparedDataset(folder), clips)
    check_prior(unwanted, PreparedDataset(folder), clips)
    info = (folder / "prep.yaml").read_text()
    (folder / "prep.yaml").write_text(info.replace(f"trigger: {TRIGGER}", "trigger: ''"))
    with pytest.raises(UserError, match="no trigger"):
        check_prior(wanted, PreparedDataset(folder), clips)
    with pytest.raises(UserError, match="says the trigger"):
        check_prior(TrainSettings(prior_share=0.5, prior_prompts=[f"piano, {TRIGGER}"]), dataset, clips)
    with pytest.raises(ValidationError):
        TrainSettings(prior_share=0.5, prior_prompts=[" "])
