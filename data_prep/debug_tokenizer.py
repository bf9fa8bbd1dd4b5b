"""A small T5 tokenizer for random bases: single characters and the words that captions are made of."""

import json
import string
from pathlib import Path

SPECIAL = ("<pad>", "</s>", "<unk>")
WORDS = tuple(
    "a and at bass beat bpm bright calm chords clean dark drum drums electric fast flute guitar heavy in jazz key "  # noqa: SIM905
    "loud major mellow minor music noise of percussive piano quiet rock slow soft song style synth tempo the vocals "
    "with".split(" ")
)


def write_tokenizer(folder: Path) -> int:
    """Write tokenizer.json and tokenizer_config.json as a T5 checkpoint has them; returns the vocabulary's size."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
    from tokenizers.models import Unigram

    pieces = [(special, 0.0) for special in SPECIAL]
    pieces += [("▁", -3.0)] + [(f"▁{word}", -2.0) for word in WORDS]
    pieces += [(character, -6.0) for character in string.printable if not character.isspace()]
    tokenizer = Tokenizer(Unigram(pieces, unk_id=SPECIAL.index("<unk>"), byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=["$A", "</s>"], pair=["$A", "</s>", "$B", "</s>"], special_tokens=[("</s>", SPECIAL.index("</s>"))]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "extra_ids": 0}
    config = {
        **names,
        "tokenizer_class": "T5Tokenizer",
        "processor_class": "MusicgenProcessor",
        "model_max_length": 512,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    return len(pieces)
