"""From a model's description to its codebook pattern: its own delays, or the one that an adapter has moved it to."""

from adapters.pattern import Delays, Pattern
from adapters.pattern_coarse_first import CoarseFirst
from adapters.pattern_flattened import Flattened
from data_prep.lm_spec import LMSpec
from data_prep.pattern_choice import PatternChoice


def pattern_of(spec: LMSpec) -> Pattern:
    """The pattern in which a model of this description reads and writes."""
    if spec.pattern is None:
        return Delays(spec.lags)
    return pattern_named(spec.pattern, spec.n_codebooks, spec.channels)


def pattern_named(choice: PatternChoice, n_codebooks: int, channels: int) -> Pattern:
    """A pattern by its name; in stereo (left 0, right 0, left 1, …) both channels' first codebooks are coarse."""
    if choice.name == "coarse_first":
        return CoarseFirst.of(n_codebooks, channels, span=choice.span_frames)
    if choice.name == "partial_flattening":
        return Flattened.coarse_apart(n_codebooks, channels)
    if choice.name == "flattening":
        return Flattened.fully(n_codebooks)
    return Delays(choice.lags(n_codebooks, channels))
