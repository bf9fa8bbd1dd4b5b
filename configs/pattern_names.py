"""Names of codebook patterns, as settings and files have them (docs/patterns.md)."""

from typing import Literal, get_args

PatternName = Literal["parallel", "partial_delay", "delay", "coarse_first", "partial_flattening", "flattening"]
PATTERNS: tuple[str, ...] = get_args(PatternName)
