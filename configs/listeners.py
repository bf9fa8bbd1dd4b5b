"""Settings of the listeners: models that hear clips and say in words what they hear."""

from pathlib import Path

from pydantic import Field

from configs.section import Section


class ListenerSettings(Section):
    """Who listens to the clips, and how."""

    use: list[str] = ["musicnn"]
    """Listeners in order of trust. `musicnn` comes with Woodshed: instruments, genre, mood, voice. `clap` picks from a
    list of words; `qwen2-audio`, `qwen2.5-omni` and `music-flamingo` write a caption; these need weights from the hub,
    or a folder: `clap:path/to/folder`. Nobody: []."""
    prompt: str = "Describe this music in one sentence: genre, mood, instruments, tempo. Name no artist and no title."
    """What the models that write captions are asked."""
    max_new_tokens: int = Field(default=96, ge=8, le=1024)
    """How long a written caption may become, in tokens."""
    bits: int | None = Field(default=None, ge=4, le=4)
    """4 loads the models that write captions in 4 bit (bitsandbytes): a quarter of the memory."""
    batch_size: int = Field(default=4, ge=1, le=64)
    """Clips such a model processes at once."""
    clap_words: Path | None = None
    """The words that `clap` picks from: a text file with a word or short phrase per line. Without it, a list of its
    own."""
