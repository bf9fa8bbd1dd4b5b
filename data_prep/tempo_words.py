"""Tempi as people and programs write them: `140bpm`, `140 BPM`, `bpm: 140`, `BPM=139.98`, `♩ = 120`, and the words for
speed (slow, fast, allegro). It knows nothing of measuring a tempo.
"""

import re

from configs.normal_text import normal_text

TEMPO_SLOW_BPM, TEMPO_FAST_BPM = 90.0, 125.0
"""Slow is below the first, fast from the second on; mid-tempo lies between."""
MIN_BPM, MAX_BPM = 20.0, 400.0
_NUMBER = r"(?<![\w.,])\d{1,4}(?:[.,]\d+)?"
_UNIT = r"(?:bpm|b\.p\.m\.?|beats?[ -]?(?:per|a|/)[ -]?min(?:ute)?)"
_STATED = re.compile(
    rf"{_NUMBER}(?= ?(?:-|–|to|/)? ?(?:\d{{2,3}}(?:[.,]\d+)?)? ?-?{_UNIT})"
    rf"|(?:(?<=-)|(?<=–)|(?<=/))\d{{1,4}}(?:[.,]\d+)?(?= ?-?{_UNIT})"
    r"|(?:bpm|tempo|♩|♪|\bq)(?: of| is)? ?[:=≈~]? ?(?P<after>\d{2,3}(?:[.,]\d+)?)(?!\d)"
    r"|\bat (?P<at>\d{2,3})(?!\w|[.,:]\d|%| ?k?hz)",
    re.IGNORECASE,
)
_FIELD_NUMBER = re.compile(r"(?<!\d[eE])\d+(?:[.,]\d+)?(?![eE]\d)")
_SPEEDS = {
    "slow": "slow|slowly|slowish|down-?tempo|largo|lento|adagio|grave|langsam",
    "mid-tempo": "mid-?tempo|medium tempo|moderate tempo|moderato|andante|mittelschnell",
    "fast": "fast|up-?tempo|allegro|presto|prestissimo|vivace|schnell|quick",
}
_SPEED_WORDS = {speed: re.compile(rf"(?<![\w-])(?:{words})(?![\w])", re.IGNORECASE) for speed, words in _SPEEDS.items()}


def read_bpm(value: str) -> float | None:
    """The tempo that a field of that name states; None where it states none, several, or one that music has not."""
    text = normal_text(value)
    numbers = {number for found in _FIELD_NUMBER.findall(text) if (number := _possible(found)) is not None}
    a_time = re.search(r"\d:\d", text) is not None
    return None if a_time or text.startswith("-") or len(numbers) != 1 else numbers.pop()


def find_tempi(text: str) -> list[float]:
    """The tempi that free words state, in beats per minute, in their order."""
    found = []
    for match in _STATED.finditer(normal_text(text)):
        number = match["after"] or match["at"] or match.group()
        found.append(float(number.replace(",", ".")))
    return list(dict.fromkeys(found))


def states_tempo(text: str) -> bool:
    """Whether free words speak of a tempo in numbers, or of "bpm" at all."""
    return bool(find_tempi(text)) or re.search(r"(?<![^\W\d_])bpm(?!\w)", text, re.IGNORECASE) is not None


def find_speeds(text: str) -> set[str]:
    """Which of slow, mid-tempo and fast the words say."""
    normal = normal_text(text)
    return {speed for speed, words in _SPEED_WORDS.items() if words.search(normal)}


def speed_of(bpm: float) -> str:
    """The word for a tempo in beats per minute."""
    return "slow" if bpm < TEMPO_SLOW_BPM else "mid-tempo" if bpm < TEMPO_FAST_BPM else "fast"


def contradicts(bpm: float, said: set[str]) -> bool:
    """Whether a tempo does not go with words for speed: a fast number with slow, or a slow one with fast."""
    speed = speed_of(bpm)
    return (speed == "fast" and "slow" in said) or (speed == "slow" and "fast" in said)


def _possible(number: str) -> float | None:
    bpm = float(number.replace(",", "."))
    return bpm if MIN_BPM <= bpm <= MAX_BPM else None
