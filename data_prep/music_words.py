"""The words in which captions speak of genre, mood, instruments and voice, and which of them rule each other out.

`genres`, `instruments` and `traits` say what a text states, in English and in the commonest words of German, French,
Spanish and Italian. A word that is not here states nothing. A word too many costs a caption one guess of a listener;
so the lists are generous.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from configs.normal_text import folded

_GENRES = (
    "2 step|a cappella|acid|afrobeat|afrobeats|alternative|americana|ambient|anime|avant garde|bachata|baile funk|"
    "ballroom|baroque|bass music|bebop|bhangra|big band|big beat|black metal|bluegrass|blues|bolero|boogie|"
    "boogie woogie|boom bap|bossa nova|bossa|breakbeat|breaks|britpop|cabaret|calypso|celtic|chamber music|chanson|"
    "chill out|chillout|chiptune|8 bit|christian|christmas|classical|country|cumbia|dance|dancehall|death metal|"
    "deathcore|disco|djent|doo wop|doom|downtempo|drill|drone|drum and bass|drum n bass|drum & bass|dnb|dub|dubstep|"
    "easy listening|edm|electro|electronic|electronica|emo|experimental|exotica|fado|flamenco|folk|folklore|footwork|"
    "forro|free jazz|funk|fusion|gabber|gamelan|garage|glam|glitch|goa|gospel|gothic|grime|grindcore|grunge|"
    "gregorian|hard rock|hardcore|hardstyle|heavy metal|hi nrg|highlife|hip hop|hiphop|honky tonk|house|hyperpop|idm|"
    "indie|industrial|jazz|jpop|j pop|jungle|k pop|kpop|klezmer|krautrock|latin|liturgical|lo fi|lofi|lounge|mambo|"
    "march|mariachi|math rock|medieval|merengue|metal|minimal|minimalism|motown|musette|musical theatre|new age|"
    "new wave|noise|opera|operetta|orchestral|oriental|polka|pop|post punk|post rock|power metal|progressive|"
    "prog|psychedelic|psytrance|punk|r&b|rnb|ragga|ragtime|rap|rave|reggae|reggaeton|renaissance|rhythm and blues|"
    "rock|rock n roll|rock and roll|rockabilly|roots|rumba|salsa|samba|schlager|schranz|shanty|shoegaze|singer "
    "songwriter|ska|skiffle|smooth jazz|soul|soundtrack|film music|filmmusik|surf|swing|symphonic|synthpop|synth pop|"
    "tango|techno|tech|thrash|trad|traditional|trance|trap|trip hop|tropical|uk garage|vaporwave|volksmusik|waltz|"
    "klassik|classique|clasica|indian|arabic|turkish|balkan|african|brazilian|world music|zouk|zydeco|zumba"
)
_COMPOUND = r"\w{3,}(?:wave|core|step|hop|metal|punk|rock|pop)"  # synthwave, metalcore, dubstep
_SAME_GENRE = {
    "drum n bass": "drum and bass", "drum & bass": "drum and bass", "dnb": "drum and bass", "hiphop": "hip hop",
    "lofi": "lo fi", "chillout": "chill out", "rnb": "r&b", "rhythm and blues": "r&b", "electronica": "electronic",
    "jpop": "j pop", "kpop": "k pop", "rock n roll": "rock and roll", "klassik": "classical", "afrobeats": "afrobeat",
    "classique": "classical", "clasica": "classical", "filmmusik": "soundtrack", "film music": "soundtrack",
    "prog": "progressive",
}  # fmt: skip
_KINDS_OF = {
    "electronic": "techno|house|trance|edm|electro|idm|drum and bass|dubstep|hardstyle|gabber|psytrance|goa|rave|"
    "acid|breakbeat|big beat|uk garage|glitch|chiptune|jungle|footwork|synthwave|vaporwave|synthpop|synth pop|2 step",
    "dance": "techno|house|trance|edm|disco|hardstyle|gabber|psytrance|goa|rave|hi nrg",
    "metal": "black metal|death metal|heavy metal|power metal|thrash|djent|doom|deathcore|grindcore|metalcore",
    "rock": "hard rock|grunge|britpop|shoegaze|krautrock|post rock|math rock|rockabilly|rock and roll|surf|indie rock",
    "hip hop": "rap|trap|drill|boom bap|grime",
    "rap": "hip hop|trap|drill|boom bap|grime",
    "jazz": "bebop|swing|big band|free jazz|smooth jazz|ragtime",
    "classical": "baroque|renaissance|chamber music|orchestral|symphonic|opera|operetta|romantic",
    "punk": "post punk|hardcore|emo",
    "latin": "salsa|samba|bossa nova|bossa|tango|mambo|rumba|cumbia|bachata|merengue|bolero|reggaeton|mariachi",
    "country": "honky tonk|bluegrass|americana",
    "folk": "bluegrass|celtic|shanty|volksmusik|traditional|trad|folklore",
    "reggae": "dub|dancehall|ragga|ska|roots",
}
_INSTRUMENTS = {
    "piano": "pianos?|grand piano|klavier|pianoforte|rhodes|wurlitzer|electric piano|e piano",
    "guitar": "guitars?|gitarren?|guitare|guitarra|chitarra|ukulele|banjo|mandolin|lap steel",
    "bass": "bass guitar|basses|bass|contrabass|double bass|kontrabass|upright bass|basse|bajo|basso|808",
    "drums": "drums?|drum kit|drumming|beats?|schlagzeug|batterie|bateria|batteria|percussion|kick|snare|hi hats?|"
    "congas?|bongos?|tabla|djembe|timpani|cajon|drum machine",
    "violin": "violins?|fiddle|geige|violine|violon|violino",
    "viola": "violas?",
    "cello": "cell[io]s?|cello|violoncello",
    "strings": "strings?|string section|string orchestra|string quartet|streicher|cordes|cuerdas|archi",
    "flute": "flutes?|recorder|floete|flote|flöte|piccolo|pan pipes|tin whistle|whistle",
    "clarinet": "clarinets?|klarinette",
    "oboe": "oboes?|bassoon|cor anglais|english horn",
    "saxophone": "saxophones?|sax|saxofon",
    "trumpet": "trumpets?|trompete|trompette|cornet|flugelhorn",
    "trombone": "trombones?|posaune|tuba",
    "horn": "horns?|french horn",
    "brass": "brass|brass band|blechblaser",
    "organ": "organs?|hammond|orgel|orgue",
    "accordion": "accordion|akkordeon|bandoneon|concertina|melodica|harmonica",
    "harp": "harps?|harfe|lyre|kora",
    "harpsichord": "harpsichord|cembalo|clavichord|spinet",
    "synth": "synths?|synthesi[sz]ers?|synth pads?|pads|moog|arpeggiator",
    "mallets": "vibraphone|marimba|xylophone|glockenspiel|kalimba|celesta|music box|steel drums?|handpan",
    "sitar": "sitars?|sarod|oud|shamisen|koto|erhu|saz|bouzouki|balalaika",
    "orchestra": "orchestras?|orchester|orchestre|ensemble",
    "bells": "bells?|chimes",
    "bagpipes": "bagpipes?",
}
_WIDER = {
    "strings": "violin|viola|cello|orchestra",
    "brass": "trumpet|trombone|horn|orchestra",
    "horn": "brass",
}
_ONLY = re.compile(
    r"(?<!\w)(?:solos?|only|alone|unaccompanied|nothing but|just|nur|allein|seul|solamente|da solo|a cappella|"
    r"acappella|acapella)(?!\w)"
)
_A_SOLO = re.compile(
    r"(?<!\w)(?:with|featuring|feat|plus|then|mit|avec|con)(?:\s\w+){0,4}?\ssol(?:os?|i)(?!\w)|solos(?!\w)"
)
"""A solo in a piece that has more: `rock with a guitar solo`."""
_WITHOUT = r"(?:no|without(?: any)?|minus|sans|ohne|kein(?:e|en)?|sin|senza|lacks?(?: any)?|free of)"
_SUNG = (
    r"vocals?|vocalists?|voices?|singing|sings?|sung|singers?|choir|choral|chorus of|rap|rapping|raps|rapper|lyrics|"
    r"a cappella|acappella|acapella|gesang|stimmen?|chor|chant|chants|chanting|voix|choeur|canto|voz|coro|voce|"
    r"humming|spoken word"
)
_TRAITS: Mapping[str, Mapping[str, str]] = {
    "mood": {
        "happy": "happy|cheerful|joyful|joyous|uplifting|feel good|jolly|merry|sunny|upbeat|playful|frohlich|fröhlich|"
        "heiter|joyeux|joyeuse|alegre|allegro e felice|felice",
        "sad": "sad|melanchol(?:y|ic)|mournful|sorrowful|gloomy|tragic|depressing|depressive|somb(?:er|re)|"
        "heartbroken|tearful|bleak|traurig|triste|malinconic[oa]",
    },
    "energy": {
        "calm": "calm|calming|chill|chilled|chill out|chillout|relaxed|relaxing|mellow|peaceful|gentle|soothing|"
        "laid back|meditative|tranquil|serene|sleepy|lullaby|easy listening|ruhig|sanft|calme|doux|douce|tranquil[oa]",
        "energetic": "energetic|high energy|aggressive|angry|furious|intense|driving|frantic|frenetic|wild|brutal|"
        "pounding|rousing|party|thrash|aggressiv|wutend|wütend|energiegeladen|energique|energico|energetico",
    },
    "light": {"dark": "dark|gloomy|sinister|ominous|dunkel|duster|düster|sombre", "bright": "bright|sunny|brillant"},
    "level": {"quiet": "quiet|soft|softly|hushed|whispered|leise|silencieux", "loud": "loud|noisy|deafening|laut"},
    "attack": {"sustained": "sustained|legato|droning|drone", "percussive": "percussive|punchy|staccato"},
    "sound": {
        "acoustic": "acoustic|unplugged|akustisch|acoustique|acustic[oa]",
        "electric": "electric|electronic|electronica|amplified|distorted|elektronisch|electronique|electronic[oa]",
    },
    "singer": {
        "female": "female|wom[ae]n|girls?|soprano|alto|weiblich(?:e|er)?|frauenstimme|sangerin|sängerin",
        "male": "male|m[ae]n|boys?|tenor|baritone|mannlich(?:e|er)?|männlich(?:e|er)?|mannerstimme|männerstimme",
    },
}
_VOICE, _SILENT = "voice", "instrumental"
_INSTRUMENTAL = r"instrumentals?|instrumental version|karaoke|no singing|voiceless"


def _words(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w)(?:{pattern})(?!\w)")


_GENRE_WORDS = _words("|".join(sorted(_GENRES.split("|"), key=len, reverse=True)) + f"|{_COMPOUND}")
_INSTRUMENT_WORDS = {name: _words(pattern) for name, pattern in _INSTRUMENTS.items()}
_TRAIT_WORDS = {axis: {name: _words(p) for name, p in names.items()} for axis, names in _TRAITS.items()}
_ABSENT = re.compile(
    rf"(?<!\w)(?:{_WITHOUT} (?P<what>[\w&]+(?: (?:or|and|nor|und|oder|et|ni|y|e) [\w&]+)*)|(?P<less>\w+)less(?!\w))"
)
_SUNG_WORDS, _INSTRUMENTAL_WORDS = _words(_SUNG), _words(_INSTRUMENTAL)
_KINDS = {wide: frozenset(kinds.split("|")) for wide, kinds in _KINDS_OF.items()}


def genres(text: str) -> frozenset[str]:
    """The genres that words state, under one spelling each."""
    return frozenset(_SAME_GENRE.get(found.group(), found.group()) for found in _GENRE_WORDS.finditer(_plain(text)))


def goes_with(genre: str, stated: Iterable[str]) -> bool:
    """Whether a genre is one of those stated, a kind of one, or a wider name for one: techno and electronic."""
    return any(genre == other or genre in _KINDS.get(other, ()) or other in _KINDS.get(genre, ()) for other in stated)


def instruments(text: str) -> frozenset[str]:
    """The instruments that words name, by kind, with the sections that they belong to."""
    return _instruments(_present(_plain(text)))


def absent_instruments(text: str) -> frozenset[str]:
    """The instruments that words say are missing: `no drums`, `without guitar or bass`, `drumless`."""
    return _instruments(_absent(_plain(text)))


def is_exclusive(text: str) -> bool:
    """Whether words say that what they name is all there is: `solo piano`, `vocals only`, `a cappella`."""
    plain = _plain(text)
    present = _present(plain)
    return bool(_ONLY.search(_A_SOLO.sub(" ", plain))) and bool(_instruments(present) or _SUNG_WORDS.search(present))


def traits(text: str) -> dict[str, frozenset[str]]:
    """What words say of mood, energy, sound, voice and so on: axis → the ends of it that they name."""
    plain = _plain(text)
    present, absent = _present(plain), _absent(plain)
    found = {
        axis: frozenset(name for name, words in names.items() if words.search(present))
        for axis, names in _TRAIT_WORDS.items()
    }
    sung = {"sung"} if _SUNG_WORDS.search(present) else set()
    silent = {_SILENT} if _INSTRUMENTAL_WORDS.search(plain) or _SUNG_WORDS.search(absent) else set()
    found[_VOICE] = frozenset(sung | silent)
    if not sung:
        found["singer"] = frozenset()
    return {axis: names for axis, names in found.items() if names}


def _instruments(plain: str) -> frozenset[str]:
    found = {name for name, words in _INSTRUMENT_WORDS.items() if words.search(plain)}
    wider = {wide for wide, kinds in _WIDER.items() if found & set(kinds.split("|"))}
    return frozenset(found | wider)


@lru_cache(maxsize=4096)
def _plain(text: str) -> str:
    return " ".join(folded(text).replace("-", " ").replace("_", " ").split())


def _present(plain: str) -> str:
    """The words less what they say is missing."""
    return _ABSENT.sub(" ", plain)


def _absent(plain: str) -> str:
    return " ".join(_missing(_ABSENT.finditer(plain)))


def _missing(matches: Iterable[re.Match[str]]) -> Iterator[str]:
    for match in matches:
        yield match["what"] or f"{match['less']} {match['less']}s"
