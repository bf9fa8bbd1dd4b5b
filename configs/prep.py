"""Settings of `woodshed prep`: a folder of songs → a prepared dataset."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from configs.listeners import ListenerSettings
from configs.normal_text import normal_text
from configs.section import Section

MAX_TRIGGER_CHARS = 1000
AUTO = "auto"
KEPT = "kept"
MIX = "mix"


class SegmentSettings(Section):
    """How a track is cut into clips."""

    max_sec: float = Field(default=30.0, gt=0, le=600)
    """Longest clip in seconds. 30 is what MusicGen was trained on."""
    min_sec: float = Field(default=5.0, gt=0, le=600)
    """Shortest clip in seconds; what is left at the end of a passage is kept when it is at least this long."""
    silence_db: float = Field(default=-50.0, ge=-120, le=0)
    """Level in dB relative to full scale below which a passage counts as silence."""
    silence_sec: float = Field(default=1.0, gt=0, le=60)
    """A silence at least this long is skipped; a shorter one stays part of the music."""

    def conflicts(self) -> Iterator[str]:
        """Clips that would have to be longer than they may be."""
        if self.min_sec > self.max_sec:
            yield (
                f"segment.min_sec ({self.min_sec:g}) is more than segment.max_sec ({self.max_sec:g}): no clip could be "
                f"both. Lower segment.min_sec to {self.max_sec:g} or less."
            )


class StemSettings(Section):
    """Source separation with Demucs, on the whole track, before it is cut."""

    use: list[str] = [MIX]
    """What to learn from. `mix` is the recording as it is; `instrumental` is everything but the vocals; `vocals`,
    `drums`, `bass`, `other` (and `guitar`, `piano` with htdemucs_6s) are single stems; `drums+bass` is a sum. Several
    entries make several versions of each track."""
    model: str = "htdemucs"
    """Demucs model: htdemucs, htdemucs_ft, htdemucs_6s, or a local folder that holds one."""
    overlap: float = Field(default=0.25, ge=0, lt=0.9)
    """Share by which neighbouring separation windows overlap."""
    shifts: int = Field(default=0, ge=0, le=20)
    """Random shifts averaged per window: better separation, that many times slower."""

    @field_validator("use")
    @classmethod
    def _something(cls, use: list[str]) -> list[str]:
        if not use:
            raise ValueError("name at least one version to learn from: mix is the recording as it is")
        return use


class CaptionSettings(Section):
    """What the text side of each clip says."""

    trigger: str = ""
    """Words that come to mean your style, part of every caption, e.g. "in the style of mine". Spaces around it and
    double ones do not count."""
    sources: list[Literal["own", "tags", "listeners", "features"]] = ["own", "tags", "listeners", "features"]
    """Where captions come from, in order of trust: your own words, tags in the file, what listeners found, measured
    features."""
    listeners: ListenerSettings = ListenerSettings()
    """Models that listen."""
    edits: Path | None = Path(KEPT)
    """A table that `woodshed captions DATA --edit FILE` wrote and you changed: the captions of the clips in it. Left
    out: those of the last run's table, which the dataset keeps; null makes all captions anew."""
    variants: int = Field(default=4, ge=1, le=32)
    """Different wordings made per clip; training draws one each time."""

    def conflicts(self) -> Iterator[str]:
        """A word list that nobody reads."""
        listeners = self.listeners
        if listeners.clap_words is not None and not any(name.split(":")[0] == "clap" for name in listeners.use):
            yield (
                "captions.listeners.clap_words is a list for clap, which is not among captions.listeners.use. Add "
                "clap, or leave the list out."
            )

    @field_validator("trigger")
    @classmethod
    def _normal(cls, trigger: str) -> str:
        normal = normal_text(trigger)
        if trigger and not normal:
            raise ValueError("says nothing: it holds spaces only; leave it out for no trigger")
        if len(normal) > MAX_TRIGGER_CHARS:
            raise ValueError(f"too long: {len(normal)} characters, at most {MAX_TRIGGER_CHARS}")
        return normal


class PrepSettings(Section):
    """All settings of `woodshed prep`."""

    base: str = "facebook/musicgen-small"
    """The base model this dataset is for: it decides codec, channels and text encoder. A hub id, a folder with the
    same files, `starter` (small, comes with Woodshed, nothing to download), or `debug` (tiny, random)."""
    revision: str | None = None
    """A fixed commit or tag of a base on the hub."""
    text_encoder: str | None = None
    """Another text encoder than the base's: a hub id (google/flan-t5-base, laion/larger_clap_music) or a folder, of
    any text model of transformers. `train` learns the projection of its states (docs/text-encoders.md)."""
    codec: str | None = None
    """Another codec than the base's: a hub id (descript/dac_44khz), a folder, or a base whose codec is meant. `train`
    learns the tables and heads of its codes (docs/codecs.md)."""
    segment: SegmentSettings = SegmentSettings()
    """How tracks are cut."""
    stems: StemSettings = StemSettings()
    """Source separation."""
    captions: CaptionSettings = CaptionSettings()
    """Captions."""
    melody: str = AUTO
    """For a base that follows a melody: the stems that it is read from. `rest` (which auto means) is all but drums and
    bass, `mix` the clip's own audio, anything else as in stems.use, and `none` trains without melodies. A base
    that follows text alone is taught to follow one where this is given."""
    beat: str = AUTO
    """Teach a base to keep to given beats: the audio that they are tracked in, `mix` (the clip's own) or stems as in
    stems.use, e.g. `drums`. auto and `none`: it is not taught."""
    notes: str = "none"
    """For a base that follows notes: the stems that they are transcribed from with basic-pitch's model. `auto` and
    `mix` are the clip's own audio, `rest` all but drums and bass, anything else as in stems.use."""
    notes_model: Path | None = None
    """basic-pitch's nmp.onnx; left out: the one in the installed package."""
    drums: str = "none"
    """For a base that is given where drums play: `drums` is the separated drum stem, `mix` the clip's own audio, `auto`
    the stem where stems are separated anyway, else the mix."""
    pair: str | None = None
    """To play along: the part to learn and its context track, `TARGET|CONTEXT`: `drums|rest`, `rest|vocals`,
    `other|drums+bass`. Both are stems or sums of stems; `rest` is all that the other side does not name. Takes the
    place of stems.use."""
    multitracks: bool = False
    """With `pair`: the song folder holds a folder per song with one aligned file per part, so nothing is separated."""
    stem_names: Path | None = None
    """With `multitracks`: a table of two columns, file name and stem, for names that do not say it (kick, vox do)."""
    validation_fraction: float = Field(default=0.1, ge=0, le=0.5)
    """Share of the music held out for validation, by whole tracks. At least one track whenever there are two."""
    max_track_sec: float = Field(default=4 * 3600.0, gt=0)
    """A track longer than this is rejected: almost always a mistake."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the separator, the codec and the text encoder run."""
    workers: int = Field(default=0, ge=0, le=64)
    """Processes that decode and measure; 0 means one per core."""
    cluster: Literal["none", "ray"] = "none"
    """ray works on the songs in a Ray cluster (or with Ray on this machine), for collections of thousands of them; all
    of its machines must see songs and dataset under the same paths."""
    batch_size: int = Field(default=8, ge=1, le=256)
    """Clips encoded at once by the codec."""
    seed: int = Field(default=0, ge=0)
    """Decides the split and the wording of captions."""

    def conflicts(self) -> Iterator[str]:
        """Settings of pairs without a pair, two answers to what is learnt, and tracks that are all too long."""
        if self.pair is None and (self.multitracks or self.stem_names is not None):
            yield "multitracks and stem_names belong to pair. Add e.g. --pair 'drums|rest', or leave them out."
        if self.pair is not None and self.stems.use != [MIX]:
            yield "pair says what is learnt, and so does stems.use. Give one of them."
        if self.pair is not None and self.stem_names is not None and not self.multitracks:
            yield "stem_names is for multitracks of your own. Add --multitracks true, or leave it out."
        if self.notes_model is not None and self.notes == "none":
            yield "notes_model is the model that reads notes, and notes is none. Leave one of them out."
        if self.max_track_sec < self.segment.min_sec:
            yield (
                f"max_track_sec ({self.max_track_sec:g}) is less than segment.min_sec ({self.segment.min_sec:g}): "
                "every track would be too long or too short."
            )
