"""The demo's "personal collection": ten short pieces in a style that the starter was never trained on.

    python -m starter.recipe.songs starter/songs

Three of them have a caption beside them, as a person's folder might.
"""

import argparse
from pathlib import Path

import soundfile

from starter.recipe.compose import ISLAND_SEEDS, compose
from starter.recipe.render import SYNTH_RATE_HZ, render
from starter.recipe.score import Piece

TITLES = (
    "harbour light",
    "salt and lime",
    "seven palms",
    "ferry day",
    "blue shutters",
    "coral street",
    "low tide",
    "the kite seller",
    "tin roof rain",
    "sunday boat",
)
CAPTIONED = (0, 4, 7)
BEFORE_THE_DEMO = 40
"""Seeds that measuring uses; the songs come behind them."""
COMPRESSION = 0.55


def write_songs(folder: Path) -> list[Piece]:
    """Write the pieces as mono OGG, and the captions."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces = [compose(ISLAND_SEEDS + BEFORE_THE_DEMO + number) for number in range(len(TITLES))]
    for number, (title, piece, audio) in enumerate(zip(TITLES, pieces, render(pieces), strict=True)):
        path = folder / f"{number + 1:02} {title}.ogg"
        with soundfile.SoundFile(
            path, "w", SYNTH_RATE_HZ, 1, format="OGG", subtype="VORBIS", compression_level=COMPRESSION
        ) as file:
            for start in range(0, len(audio), SYNTH_RATE_HZ):  # libsndfile's Vorbis overflows the stack on long writes
                file.write(audio[start : start + SYNTH_RATE_HZ])
        if number in CAPTIONED:
            words = f"fast island music in 6/8, steel drums and kalimba, with drums, {piece.tempo_bpm} bpm"
            path.with_suffix(".txt").write_text(f"{words}, in {piece.key}\n")
    return pieces


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    for piece in write_songs(args.folder):
        print(piece.facts())


if __name__ == "__main__":
    main()
