"""What `--stems` can ask for: `mix`, `instrumental`, a single stem, or a sum of stems such as `drums+bass`."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from configs.errors import UserError

MIX = "mix"
INSTRUMENTAL = "instrumental"
VOCALS = "vocals"
DRUMS = "drums"
BASS = "bass"
REST = "rest"
"""All but drums and bass: what MusicGen's melody is read from (arXiv:2306.05284, section 3.2)."""
FOUR = ("drums", "bass", "other", "vocals")
PUBLISHED = {"htdemucs": FOUR, "htdemucs_ft": FOUR, "htdemucs_6s": (*FOUR, "guitar", "piano")}
"""What each model separates (https://github.com/adefossez/demucs, README)."""


@dataclass(frozen=True)
class Selection:
    """One version of a track: the recording itself, the recording without vocals, or a sum of stems."""

    name: str
    """How it is spelled in files and clips: parts in alphabetical order, `bass+drums` for `drums+bass`."""
    parts: tuple[str, ...]

    @property
    def needs(self) -> frozenset[str]:
        """The stems that must be separated for it; none for the mix."""
        if self.parts == (MIX,):
            return frozenset()
        return frozenset({VOCALS} if self.parts == (INSTRUMENTAL,) else self.parts)


def parse_selection(text: str) -> Selection:
    """Read one entry of `stems.use`; which stems exist depends on the model: see `check_selections`.

    Raises:
        UserError: it is empty, names a part twice, or adds something to `mix` or `instrumental`.
    """
    parts = [part.strip().lower() for part in text.split("+")]
    if not all(parts):
        raise _refused(text, "a part is missing", "write stems with + between them, as in drums+bass")
    if len(set(parts)) < len(parts):
        raise _refused(text, "a stem is named twice", "name each stem once")
    if len(parts) > 1 and {MIX, INSTRUMENTAL} & set(parts):
        raise _refused(
            text, f"{MIX} and {INSTRUMENTAL} hold several stems already", "use them alone, or add single stems"
        )
    ordered = tuple(sorted(parts))
    return Selection("+".join(ordered), ordered)


def rest_of(model: str, version: str = MIX) -> Selection | None:
    """All stems of a version but drums and bass, as this separator names them; None where nothing is left."""
    stems = PUBLISHED.get(model, FOUR)
    parts = {MIX: stems, INSTRUMENTAL: tuple(stem for stem in stems if stem != VOCALS)}.get(version, version.split("+"))
    left = [part for part in parts if part not in (DRUMS, BASS)]
    return parse_selection("+".join(left)) if left else None


def check_selections(selections: Sequence[Selection], sources: Sequence[str]) -> None:
    """Whether all that is asked for is among the stems that there are: a model's, or a person's own.

    Raises:
        UserError: with the nearest stem the model has.
    """
    for selection in selections:
        for part in sorted(selection.needs - set(sources)):
            near = difflib.get_close_matches(part, [*sources, MIX, INSTRUMENTAL], n=1)
            guess = f"did you mean {near[0]}? " if near else ""
            six = " guitar and piano come with stems.model htdemucs_6s" if part in ("guitar", "piano") else ""
            known = ", ".join([MIX, INSTRUMENTAL, *sources])
            raise _refused(selection.name, f"there is no stem {part}", f"{guess}there are: {known}.{six}")


def check_published(selections: Sequence[Selection], model: str) -> None:
    """The same for a model that Demucs publishes, by its name alone: before anything is fetched.

    Raises:
        UserError: with the nearest stem the model has.
    """
    if model in PUBLISHED:
        check_selections(selections, PUBLISHED[model])


def _refused(text: str, what: str, fix: str) -> UserError:
    return UserError(f"stems {text!r}: {what}", where="stems.use", fix=fix)
