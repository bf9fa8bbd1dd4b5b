"""`woodshed codec report`, from songs to the page."""

from collections.abc import Sequence
from pathlib import Path

from configs.errors import UserError
from data_prep.codec_measures.opus import opus_available
from data_prep.codec_measures.visqol import visqol_available
from data_prep.device import pick_device
from finetune.codec_report.contestants import Contestant, OpusContestant, load_contestants
from finetune.codec_report.measure import measure_all
from finetune.codec_report.page import Report, write_report
from finetune.codec_report.passages import choose_passages

PAGE = "report.html"


def make_report(
    songs: Path, codecs: Sequence[str], out: Path, *, seconds: float, at_most: int, n_players: int, device: str
) -> Report:
    """Measure codecs on songs and write the page into `out`.

    Raises:
        UserError: songs or codecs cannot be used, or `out` holds something else.
    """
    if out.exists() and any(out.iterdir()) and not (out / PAGE).exists():
        raise UserError("The folder for the report holds other things.", where=str(out), fix="Give another --out.")
    passages, left_out = choose_passages(songs, seconds=seconds, at_most=at_most)
    loaded = load_contestants(list(codecs), pick_device(device))
    contestants: list[Contestant] = [*loaded]
    if opus_available():
        contestants.append(OpusContestant(max(one.channels for one in loaded)))
    else:
        left_out = [*left_out, "Opus: this FFmpeg cannot encode it"]
    results = measure_all(contestants, passages)
    report = Report(songs, passages, left_out, results, visqol_available())
    write_report(report, contestants, out, n_players=n_players)
    return report
