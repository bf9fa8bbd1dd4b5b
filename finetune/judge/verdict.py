"""Numbers → findings: a sentence each that says what was found and what it means, and the headline over all.

Thresholds stand here, in one place. They are choices, not laws of nature: docs/evaluating.md says how they were made.
"""

from collections.abc import Sequence

import numpy as np

from finetune.judge.copying import BACK_SEC, COPIED_SEC, GIVEN_SEC, RETURNED, Completion, Losses, Runs
from finetune.judge.findings import Finding
from finetune.judge.followed import Followed
from finetune.judge.health import Health
from finetune.judge.intervals import Estimate, mean_estimate, share_estimate
from finetune.judge.trust import Trust

MUCH_STYLE = 30.0
"""Percent of the way to the person's music that counts as sounding like it."""
LITTLE_FORGOTTEN, MUCH_FORGOTTEN = 15.0, 40.0
"""Percent of the distance to the person's music by which other music may move; and from where on it is a fault."""
MUCH_KL_NATS = 1.0
"""Predictions on other music that moved by more than this are others, whatever an embedding hears: a sound adapter for
the starter moved them by 0.04, one that had learnt a song by heart by 2.7."""
ILL_SHARE = 0.1
COLLAPSED = 0.5
"""Seeds differ by less than this share of what they differ by in the base."""


def trust_finding(trust: Trust, embedding: str, few: bool) -> Finding:
    """Whether the distance can be believed here."""
    said = (
        f"Measured in the same way, more of your own music lies at {trust.own.value:.1f}, other music at "
        f"{trust.other.value:.1f}, noise at {trust.noise.value:.1f}"
    )
    verdict = (
        f"{embedding} tells your music from other music, so the style number can be believed."
        if trust.holds
        else f"{embedding} does not tell your music from other music here: do not believe the style number."
    )
    more = " Too little music was held out, so training songs stand beside it." if few else ""
    numbers: dict[str, Estimate | float | None] = {"own": trust.own, "other": trust.other, "noise": trust.noise}
    level = "good" if trust.holds else "bad"
    return Finding("trust", "Does the measure work here?", f"{said}. {verdict}{more}", level, numbers=numbers)


def style_finding(style: Estimate | None, numbers: dict[str, Estimate | float | None], trusted: bool) -> Finding:
    """How near to the person's music."""
    title = "Style gained"
    if style is None or not np.isfinite(style.value):
        why = "the base is already as near as the measure can tell" if style is not None else "no music to compare with"
        return Finding("style", title, f"It could not be measured: {why}.", "notice", None, "%", numbers)
    text = (
        f"Asked with the trigger it plays {style.value:.0f} % of the way from the base to your music "
        f"(between {style.low:.0f} and {style.high:.0f} %)."
    )
    if not trusted:
        return Finding(
            "style", title, text + " The measure failed its check, see above.", "notice", style, "%", numbers
        )
    if style.low <= 0:
        return Finding("style", title, text + " That may be chance: no gain is shown.", "notice", style, "%", numbers)
    words = " It sounds like you." if style.value >= MUCH_STYLE else " A real gain, and a small one."
    return Finding("style", title, text + words, "good" if style.value >= MUCH_STYLE else "notice", style, "%", numbers)


def bare_finding(bare: Estimate | None, style: Estimate | None) -> Finding | None:
    """What happens without the trigger."""
    if bare is None or style is None or not np.isfinite(bare.value):
        return None
    text = (
        f"The same prompts without the trigger go {bare.value:.0f} % of the way ({bare.low:.0f} to {bare.high:.0f} %)."
    )
    half = 0.5 * style.value
    if bare.low > 0 and bare.value > half:
        level, words = "notice", "The style comes without being called."
    elif bare.high < max(half, 0):
        level, words = "good", "The trigger is what brings the style."
    else:
        level, words = "plain", "The interval is too wide to say whether the trigger makes the difference."
    return Finding("without_trigger", "Without the trigger", f"{text} {words}", level, bare, "%")


def forgetting_finding(moved: Estimate | None, kl: Estimate, scaled: bool) -> Finding:
    """What other music lost."""
    numbers: dict[str, Estimate | float | None] = {"token_kl_nats": kl}
    drift = f"its predictions there moved by {kl.value:.2f} nats a token ({kl.low:.2f} to {kl.high:.2f})"
    title = "Everything else kept"
    if moved is None:
        return Finding("forgetting", title, f"Nothing was played to tell by; {drift}.", "notice", None, "", numbers)
    if not scaled:
        text = f"Other music moved by {moved.value:.1f} (KAD, {moved.low:.1f} to {moved.high:.1f}); {drift}."
        return Finding("forgetting", title, text, "plain", moved, "KAD", numbers)
    text = (
        f"Forgetting is {max(moved.value, 0):.0f} % ({max(moved.low, 0):.0f} to {max(moved.high, 0):.0f} %): on "
        f"prompts for other music it moved that far, where 100 % is all the way to your music; {drift}."
    )
    level = "good" if moved.value <= LITTLE_FORGOTTEN else "bad" if moved.low >= MUCH_FORGOTTEN else "notice"
    words = {"good": "Other music is kept.", "notice": "Some of it was lost.", "bad": "Much was lost."}[level]
    if level == "good" and kl.low > MUCH_KL_NATS:
        level, words = (
            "notice",
            "It sounds of the same kind, and is played quite differently: listen before you trust it.",
        )
    return Finding("forgetting", title, f"{text} {words}", level, moved, "%", numbers)


def followed_finding(base: Sequence[Followed], adapted: Sequence[Followed]) -> Finding | None:
    """Tempo and key, asked for and measured; row for row the same asks."""
    numbers: dict[str, Estimate | float | None] = {}
    said, worse = [], False
    for name in ("tempo", "key"):
        pairs = [(getattr(ours, name), getattr(theirs, name)) for ours, theirs in zip(adapted, base, strict=True)]
        known = [(bool(ours), bool(theirs)) for ours, theirs in pairs if ours is not None and theirs is not None]
        if len(known) < 2:
            continue
        after, before = (share_estimate([pair[side] for pair in known]) for side in (0, 1))
        change = mean_estimate([float(ours) - float(theirs) for ours, theirs in known])
        numbers |= {name: after, f"{name}_base": before, f"{name}_change": change}
        said.append(f"the {name} is right in {after.value:.0%} of {after.n} pieces ({before.value:.0%} with the base)")
        worse |= change.high < 0
    if not said:
        return None
    text = f"Where a prompt names it, {' and '.join(said)}."
    text += " It follows less well than the base." if worse else " No worse than the base, as far as these can tell."
    return Finding("prompt", "Prompt followed", text, "notice" if worse else "good", numbers=numbers)


def agreement_finding(name: str, base: np.ndarray, adapted: np.ndarray) -> Finding | None:
    """Agreement of sound and words by a model's judgement, adapter minus base, prompt by prompt."""
    known = np.isfinite(base) & np.isfinite(adapted)
    if known.sum() < 2:
        return None
    found = mean_estimate(adapted[known] - base[known])
    words = "falls" if found.high < 0 else "rises" if found.low > 0 else "stays about the same"
    ends = f"{found.low:+.3f} to {found.high:+.3f}"
    text = f"By {name}, the agreement of sound and prompt {words}: {found.value:+.3f} ({ends})."
    return Finding(
        f"agreement_{name}", f"Prompt followed, by {name}", text, "notice" if found.high < 0 else "good", found
    )


def health_finding(
    base: Sequence[Health], adapted: Sequence[Health], base_spread: np.ndarray, spread: np.ndarray
) -> Finding:
    """Silence, clipping, loops, level, and whether seeds still differ."""
    numbers: dict[str, Estimate | float | None] = {}
    faults = []
    for name, words in (("is_silent", "silent"), ("is_clipped", "clipped"), ("is_stuck", "stuck in a loop")):
        ours, theirs = ([getattr(one, name) for one in these] for these in (adapted, base))
        share = share_estimate(ours)
        numbers |= {words: share, f"{words}, base": share_estimate(theirs)}
        if sum(ours) > max(ILL_SHARE * len(ours), sum(theirs)):
            faults.append(f"{sum(ours)} of {len(ours)} pieces are {words} ({sum(theirs)} with the base)")
    levels = [[one.loudness_lufs for one in these if one.loudness_lufs is not None] for these in (adapted, base)]
    numbers |= {
        name: float(np.median(these)) if these else None
        for name, these in zip(("loudness_lufs", "loudness_lufs_base"), levels, strict=True)
    }
    known = np.isfinite(spread) & np.isfinite(base_spread)
    if known.any():
        ratio = float(spread[known].mean() / max(base_spread[known].mean(), 1e-9))
        numbers["diversity"] = ratio
        if ratio < COLLAPSED:
            faults.append(f"different seeds give nearly one piece: they differ {ratio:.0%} as much as the base's")
    text = "; ".join(faults) + "." if faults else "No piece is silent, clipped or stuck more often than with the base"
    if not faults:
        text += f", and seeds differ {numbers['diversity']:.0%} as much." if "diversity" in numbers else "."
    return Finding("health", "Health", text[0].upper() + text[1:], "bad" if faults else "good", numbers=numbers)


def copying_finding(runs: Runs | None, completion: Completion | None, losses: Losses | None) -> Finding:
    """Does it give training songs back? In plain words, for the card as well."""
    title = "Memorised songs"
    if runs is None:
        return Finding(
            "copying", title, "Not looked for: without the dataset nobody knows what it was taught.", "notice"
        )
    numbers, bad, hint = _copying_numbers(runs, completion, losses), [], []
    if runs.copies:
        worst = max(runs.with_training, key=lambda one: one.all_codebooks)
        bad.append(
            f"{len(runs.copies)} of {len(runs.with_training)} pieces hold a passage of a training song, code for code; "
            f"the longest, at least {runs.longest_sec:.1f} s, is from {worst.source!r}"
        )
    if completion is not None and completion.training:
        mean, other = np.mean(completion.training), completion.held_out or completion.base_training
        text = (
            f"given {GIVEN_SEC:g} s of a training clip, {mean:.0%} of the next {BACK_SEC:g} s come back "
            f"({np.mean(other):.0%} of {'held-out clips' if completion.held_out else 'the same clips from the base'})"
        )
        if completion.excess.value > RETURNED and (completion.excess.low > 0 or completion.excess.value > 0.5):
            bad.append(text)
    if losses is not None and losses.is_overfitted:
        hint.append(
            f"it predicts training songs {losses.gap.value:.2f} nats a token better than held-out ones, beyond the base"
        )
    if bad:
        return Finding("copying", title, f"It has memorised: {'; '.join([*bad, *hint])}.", "bad", None, "", numbers)
    longest = f"the longest is {runs.longest_sec:.2f} s"
    clean = f"No piece shares a passage of {COPIED_SEC:g} s or more with a training song ({longest})"
    if completion is not None and completion.training:
        clean += f"; {text}"
    if hint:
        return Finding("copying", title, f"{clean}; but {hint[0]}: it is overfitted.", "notice", None, "", numbers)
    return Finding("copying", title, f"{clean}. No copying was found.", "good", None, "", numbers)


def _copying_numbers(
    runs: Runs, completion: Completion | None, losses: Losses | None
) -> dict[str, Estimate | float | None]:
    numbers: dict[str, Estimate | float | None] = {
        "longest_run_sec": runs.longest_sec,
        "longest_run_by_chance_sec": runs.chance_sec,
        "pieces_with_a_copied_passage": float(len(runs.copies)),
    }
    if runs.with_held_out:
        numbers["first_codebook_excess_sec"] = runs.excess_sec()
        numbers["first_codebook_excess_within_edits_sec"] = runs.excess_sec(edits=True)
    if completion is not None and completion.training:
        numbers["completion_excess"] = completion.excess
        for name in ("training", "held_out", "base_training", "base_held_out"):
            values = getattr(completion, name)
            numbers[f"completion_{name}"] = float(np.mean(values)) if values else None
    if losses is not None:
        numbers |= {"loss_gap_nats": losses.gap, "held_out_gain_nats": losses.gained}
    return numbers


def headline(findings: Sequence[Finding]) -> str:
    """The verdict in one or two sentences: faults first."""
    known = {one.id: one for one in findings}
    faults = [one for one in findings if one.level == "bad" and one.id != "trust"]
    if "copying" in known and known["copying"].level == "bad":
        return "Do not share this adapter: it has memorised training songs." + _also(faults, "copying")
    parts = []
    style, forgetting = known.get("style"), known.get("forgetting")
    if style is not None and style.estimate is not None:
        gained = style.estimate
        shown = style.level == "good" or (gained.low > 0 and known.get("trust", style).level != "bad")
        parts.append(
            f"it has come {gained.value:.0f} % of the way to your music" if shown else "no gain in style is shown"
        )
    if forgetting is not None and forgetting.estimate is not None and forgetting.unit == "%":
        parts.append(f"it has forgotten {max(forgetting.estimate.value, 0):.0f} % of the rest")
    if "copying" in known and known["copying"].level == "good":
        parts.append("no copying was found")
    elif "copying" in known and "overfitted" in known["copying"].text:
        parts.append("it is overfitted to its songs")
    text = ", ".join(parts) or "little could be measured"
    return text[0].upper() + text[1:] + "." + _also(faults, "forgetting")


def _also(faults: Sequence[Finding], besides: str) -> str:
    rest = [one.title.lower() for one in faults if one.id != besides]
    return f" Also look at: {', '.join(rest)}." if rest else ""
