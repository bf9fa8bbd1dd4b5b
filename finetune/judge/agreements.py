"""How well a piece agrees with the words it was asked for, by models that hear: musicnn's tags, CLAP.

Neither is a person, and both have their own taste: only the difference between adapter and base, on the same prompts
and seeds, is reported.
"""

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from finetune.judge.followed import Agreement

NO = r"(?<!\bno )(?<!\bwithout )"


class TagAgreement:
    """Log-odds of the musicnn tags that the prompt names, on average; NaN where it names none.

    "no drums" does not ask for drums, and what is not named is not looked at.
    """

    name = "musicnn's tags"

    def agree(
        self, audio: Sequence[Float[np.ndarray, "C _"]], prompts: Sequence[str], sample_rate_hz: int
    ) -> Float[np.ndarray, " N"]:
        """One number for each piece."""
        from data_prep.listeners.embedding import mono
        from data_prep.listeners.musicnn.log_mel import SAMPLE_RATE_HZ
        from data_prep.listeners.musicnn.model import score
        from data_prep.listeners.musicnn.tags import TAGS

        tags, found = TAGS["mtt"], []
        for one, prompt in zip(audio, prompts, strict=True):
            asked = [place for place, tag in enumerate(tags) if names(prompt, tag)]
            if not asked:
                found.append(float("nan"))
                continue
            scores = score(mono(one, sample_rate_hz, SAMPLE_RATE_HZ), ("mtt",))["mtt"].scores[asked]
            scores = np.clip(scores.astype(np.float64), 1e-6, 1 - 1e-6)
            found.append(float(np.log(scores / (1 - scores)).mean()))
        return np.array(found, dtype=np.float64)


class ClapAgreement:
    """CLAP's cosine of sound and prompt.

    Raises:
        UserError: its weights are out of reach.
    """

    name = "CLAP"

    def __init__(self, model: str = "") -> None:
        from data_prep.listeners.clap import Clap

        self._clap = Clap(model)

    def agree(
        self, audio: Sequence[Float[np.ndarray, "C _"]], prompts: Sequence[str], sample_rate_hz: int
    ) -> Float[np.ndarray, " N"]:
        """One number for each piece."""
        from data_prep.listeners.embedding import mono

        heard = [mono(one, sample_rate_hz, self._clap.sample_rate_hz) for one in audio]
        return self._clap.score(heard, list(prompts)).astype(np.float64)


def names(prompt: str, tag: str) -> bool:
    """Whether a prompt asks for a tag in so many words."""
    return re.search(rf"{NO}\b{re.escape(tag)}\b", prompt, re.IGNORECASE) is not None


def agreements_for(embedding: str) -> list[Agreement]:
    """What judges of sound and words go with an embedding; none where only a spectrum is looked at."""
    if embedding == "spectrum":
        return []
    return [ClapAgreement()] if embedding == "clap" else [TagAgreement()]
