"""Which sources of conditions there are. A new one is a file with a class that keeps to the port, and a line here."""

from data_prep.condition_sources.beat import BeatsOfSound
from data_prep.condition_sources.drums import DrumsNear
from data_prep.condition_sources.melody import Melody
from data_prep.condition_sources.notes import TranscribedNotes
from data_prep.condition_sources.port import ConditionSource
from data_prep.condition_sources.style import StyleOfSound
from data_prep.lm_spec import ConditionKind, LMSpec

_SOURCES: dict[str, ConditionSource] = {
    source.kind: source for source in (Melody(), StyleOfSound(), TranscribedNotes(), DrumsNear(), BeatsOfSound())
}


def register(source: ConditionSource) -> None:
    """Make a source known that does not come with Woodshed; the newest registration of a kind counts."""
    _SOURCES[source.kind] = source


def source_of(kind: str) -> ConditionSource | None:
    """The source of a kind, if there is one; text has none, it is encoded per caption."""
    return _SOURCES.get(kind)


def sources_for(spec: LMSpec) -> list[tuple[ConditionKind, ConditionSource]]:
    """The kinds that a model follows and that can be made from audio, with their sources."""
    return [(kind, _SOURCES[kind.name]) for kind in spec.conditions if kind.name in _SOURCES]
