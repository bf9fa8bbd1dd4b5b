"""The one filter that every listener's words pass before they may stand in a caption.

A model that writes about music invents: who plays, what the song is called, what the words are. None of it belongs in a
caption: an adapter should learn a sound, not answer to a person's name, least of all to one that was made up. What is
taken out:

* attributions ("in the style of …", "by …", "reminiscent of …") to a name in capitals;
* two or more capitalised words in a row in the middle of a sentence, unless all are words of music or places;
* what is quoted: titles and lyrics;
* the song's own artist and title, as its tags state them;
* chatter before the caption ("Sure! Here is …"), mark-up, addresses, whole sentences that repeat.

What remains keeps its language and its letters, on one line of at most `MAX_CHARS`, cut at the end of a sentence. Names
are found by their capitals: in scripts that have none (Japanese, Arabic) only the song's own tags and quotes are found,
and a single capitalised word is left alone, since in some languages every noun has a capital.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from data_prep.listeners.listener import Answer, Known
from data_prep.tags import plain_text

MAX_CHARS = 400
MAX_WORD_CHARS = 40
MAX_WORDS = 12
_READ_CHARS = 4000
_MUSICAL_WORDS = """
a ab abs acid acoustic african afro american arabic ambient asian balearic balkan bass bb bebop big blues bossa
brazilian british c caribbean celtic chicago chinese classical cuban d detroit disco dj dnb drum dub e eastern eb
edm egyptian electric english european f fender flamenco flat folk french funk g german gm greek gregorian gypsy
hammond hawaiian hip hop house idm indian indie irish italian jamaican japanese jazz jpop kpop latin lead leslie lo
fi major mediterranean metal mexican middle midi minor moog moorish n neo new nordic nova orleans organ persian
piano pop punk r rhodes rnb rock roll romantic russian scandinavian scottish sharp soul southern spanish
stratocaster synth tango techno tempo tr turkish uk us usa vst west western wurlitzer bpm lufs i ii iii iv v vi vii
baroque renaissance
"""
_MUSICAL = frozenset(_MUSICAL_WORDS.split())
_NAME = r"(?:[A-ZÀ-ÖØ-Þ]\.(?=\s?[A-ZÀ-ÖØ-Þ])|[A-ZÀ-ÖØ-Þ][\w'’&-]*)"
_NAMES = rf"{_NAME}(?:(?:\s+|\s*,\s*|\s+(?:and|und|et|y|e|&|the|of|de|van|von)\s+){_NAME})*"
_ATTRIBUTION = re.compile(
    rf"[,;]?\s*\(?\b(?i:(?:in|with) (?:the|a) (?:style|vein|manner|spirit|tradition) of|(?:very )?(?:similar|akin) to|"
    rf"reminiscent of|evok(?:es|ing)|reminds? (?:me )?of|(?:inspired|influenced|performed|written|composed|produced|"
    rf"sung|played|recorded|made) by|by|à la|sounds? like|like|from|feat(?:uring)?\.?|ft\.?) "
    rf"(?:the (?:band|artist|singer|composer|group|likes of)\s+|artists like\s+|bands like\s+)?({_NAMES})\)?"
)
_ROW = re.compile(rf"{_NAME}(?:\s+{_NAME})+")
_QUOTED = re.compile(
    r"(?:(?i:\b(?:titled|entitled|called|named|title is|lyrics(?: are| say| include)?|sings?|singing)\b)[\s:,]*)?"
    r"(?:\"[^\"]{1,200}\"|“[^”]{1,200}”|„[^“”]{1,200}[“”]|«[^»]{1,200}»|「[^」]{1,200}」|『[^』]{1,200}』"
    r"|(?<!\w)'[A-ZÀ-Þ][^']{1,100}'(?!\w))"
)
_CHATTER = re.compile(
    r"^\s*(?:(?i:sure|certainly|of course|okay|ok|absolutely)[!,.]*\s+)?"
    r"(?:(?i:here(?:'s| is| are)|this is)\b[^.:\n]{0,80}(?i:caption|description|summary)[^.:\n]{0,40}:\s*"
    r"|(?i:caption|description|answer|summary)\s*:\s*)?"
)
_MARKUP = re.compile(r"[*_`#>|]+|^\s*(?:[-•]|\d+[.)])\s+|<[^>]{0,40}>", re.MULTILINE)
_ADDRESS = re.compile(r"\S*(?:https?://|www\.)\S+|\S+@\S+\.\S+|(?<!\w)@\w+")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])\s*")
_WIDE_END = ("。", "！", "？")


def filtered(heard: Answer, known: Known) -> Answer:
    """The same with words and text that may stand in a caption; what was taken out is in `removed`."""
    removed: list[str] = list(heard.removed)
    text = clean_text(heard.text, known.tags, removed)
    words = clean_words(heard.words, known.tags, removed)
    return replace(heard, text=text, words=tuple(words), removed=tuple(dict.fromkeys(removed)))


def clean_words(words: Iterable[str], tags: Mapping[str, str], removed: list[str]) -> list[str]:
    """Each word or short phrase once; what is too long for one, names the artist, or says nothing goes to `removed`."""
    kept: dict[str, str] = {}
    for word in words:
        text = plain_text(_ADDRESS.sub(" ", word), MAX_CHARS).strip(" ,;:.")
        bare = _without(text, _own_names(tags), removed)
        if not any(map(str.isalnum, bare)) or len(bare) > MAX_WORD_CHARS or bare != text or len(kept) == MAX_WORDS:
            removed += [text[:MAX_CHARS]] if text else []
        else:
            kept.setdefault(bare.casefold(), bare)
    return list(kept.values())


def clean_text(text: str, tags: Mapping[str, str], removed: list[str]) -> str:
    """Sentences that may stand in a caption, on one line; what was taken out is added to `removed`."""
    plain = _MARKUP.sub(" ", _CHATTER.sub("", text[:_READ_CHARS], count=1))
    plain = plain_text(_ADDRESS.sub(" ", plain), _READ_CHARS)
    plain = _cut_out(_QUOTED, plain, removed)
    plain = _cut_out(_ATTRIBUTION, plain, removed, spare=_all_musical)
    plain = _without(plain, _own_names(tags), removed)
    kept: dict[str, str] = {}
    for sentence in sentences(plain):
        whole = _tidy(_without_rows(sentence, removed))
        if sum(map(str.isalpha, whole)) >= 2:
            kept.setdefault(whole.casefold(), whole)
    return _short(list(kept.values()), removed)


def sentences(text: str) -> list[str]:
    """The sentences of a text, each with the mark it ends with."""
    return [part.strip() for part in _SENTENCE_END.split(text) if part.strip()]


def joined(several: Sequence[str]) -> str:
    """Sentences with a space between, except after the full stops of scripts that write none."""
    return "".join(s if s.endswith(_WIDE_END) else f"{s} " for s in several).strip()


def _without_rows(sentence: str, removed: list[str]) -> str:
    """The sentence less rows of capitalised words; its first word has its capital from standing first."""
    first, _, rest = sentence.partition(" ")
    found = [m for m in _ROW.finditer(rest) if not _all_musical(m.group())]
    for match in reversed(found):
        removed.append(match.group())
        rest = rest[: match.start()] + rest[match.end() :]
    return f"{first} {rest}".strip()


def _cut_out(
    pattern: re.Pattern[str], text: str, removed: list[str], spare: Callable[[str], bool] | None = None
) -> str:
    def gone(match: re.Match[str]) -> str:
        if spare is not None and spare(match.group(1)):
            return match.group()
        removed.append(match.group().strip(" ,;"))
        return ""

    return pattern.sub(gone, text)


def _all_musical(names: str) -> bool:
    return all(word.casefold() in _MUSICAL for word in re.findall(r"[^\W\d_]+", names))


def _own_names(tags: Mapping[str, str]) -> list[str]:
    """Artist, title and album; not a title that is a common word, such as "Piano"."""
    names = [plain_text(tags.get(field, "")) for field in ("artist", "title", "album")]
    return [name for name in names if len(name) > 2 and name.casefold() not in _MUSICAL]


def _without(text: str, names: Sequence[str], removed: list[str]) -> str:
    for name in names:
        pattern = re.compile(rf"(?<!\w){re.escape(name)}(?:['’]s)?(?!\w)", re.IGNORECASE)
        if pattern.search(text):
            removed.append(name)
            text = pattern.sub("", text)
    return text


def _tidy(text: str) -> str:
    """Without the gaps that something taken out leaves."""
    text = re.sub(r"\(\s*\)|\s+(?=[,.;:!?])", "", " ".join(text.split()))
    text = re.sub(r"([,;:])(?:\s*[,;:])+", r"\1", text)
    text = re.sub(r"(?i)[\s,;:]+(?:and|or|by|like|with|from|of|the|a|an|is|called|titled)(?=[.!?]?$)", "", text)
    return re.sub(r"[,;:]+(?=[.!?]?$)", "", text).strip(" ,;:-")


def _short(several: list[str], removed: list[str]) -> str:
    """As many whole sentences as fit; of a first one that is too long, its beginning."""
    kept = several[:1]
    for sentence in several[1:]:
        if len(joined([*kept, sentence])) > MAX_CHARS:
            break
        kept.append(sentence)
    removed += several[len(kept) :]
    return plain_text(joined(kept), MAX_CHARS)
