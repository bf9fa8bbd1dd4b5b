"""What a column of a metadata file, or a field of a JSON sidecar, holds by its name: a file, a caption, or a fact.

The names are those of AudioFolder (`file_name`, `text`), of audiocraft's manifests (`path`, `description`,
`keywords`), of caption sets such as MusicCaps (`caption`, `aspect_list`), and of what people call them by hand. Upper
case, spaces and hyphens do not count: `File Name` is `file_name`.
"""

import re
from typing import Literal

from configs.normal_text import folded

_FILE_COLUMNS = """
    file_name filename file file_path filepath path audio_file audio_filename audio_file_name audio_path
    audio_filepath audio wav wav_path audio_url song song_name song_path track track_path location fname
    relative_path audio_id item name id title
"""
FILE_COLUMNS = tuple(_FILE_COLUMNS.split())
"""The first of these that is there names the song; the later ones are facts then."""
_CAPTION_COLUMNS = frozenset(["text", "texts", "style_of_music"])
_CAPTION_WORD = re.compile(r"(?:^|_)(?:captions?|descriptions?|prompts?)(?:$|_)")
_NO_CAPTION = re.compile(
    r"(?:^|_)(?:negative|neg|id|ids|path|file|url|lang|language|source|type|model|length|len)(?:$|_)"
)
_KEYWORDS = frozenset(["tags", "tag", "keywords", "keyword", "aspects", "aspect_list", "tag_list"])

Meaning = Literal["caption", "keywords", "fact"]


def column_name(name: str) -> str:
    """A column's name for comparing: one case, underscores for spaces and hyphens, no quotes around it."""
    return re.sub(r"[\s\-.]+", "_", folded(name).strip("\"'` "))


def meaning(name: str) -> Meaning:
    """What a column that names no file holds. Keywords are one caption, however many there are."""
    known = column_name(name)
    if known in _KEYWORDS:
        return "keywords"
    if known in _CAPTION_COLUMNS or (_CAPTION_WORD.search(known) and not _NO_CAPTION.search(known)):
        return "caption"
    return "fact"
