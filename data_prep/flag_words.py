"""A clip's flags (`ClipRow.flags`), which programs read, as sentences for people."""

_SIDES = {"left": "the left side", "right": "the right side", "side": "their difference"}


def remark(flag: str) -> str:
    """A flag as a sentence; one that is not known here as it is, with spaces."""
    name, _, value = flag.partition(":")
    if name == "cancels_in_mono":
        kept = value.removesuffix("_used")
        return f"left and right cancel out in mono: {_SIDES.get(kept, kept)} is used"
    if name == "bad_packets":
        return "1 damaged packet was skipped" if value == "1" else f"{value} damaged packets were skipped"
    sentences = {
        "clipped": "clipped: the loudest peaks are cut off",
        "caption_cut": "a caption is longer than the text encoder reads, and is cut",
        "vocals_found": "a voice was found, though no vocals are wanted here",
        "same_audio_as": f"exactly the same audio as {value}",
        "sounds_like": f"sounds like {value}: they are in the same split",
    }
    return sentences.get(name, flag.replace("_", " "))
