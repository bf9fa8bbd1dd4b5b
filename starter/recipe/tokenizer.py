"""The starter's own T5 tokenizer: a small unigram vocabulary, the most frequent words of the composer's captions.

A word that captions use is one piece, so that a text encoder of two layers need not learn to spell. Every printable
character is a piece of its own, so any caption can be read, if not understood. The library's own trainer drops whole
words from so small a corpus: it counts how often a piece occurs in different words, not in text.
"""

import json
import math
import string
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram

SPECIAL = ("<pad>", "</s>", "<unk>")
LONGEST_TOKENS = 128
SPELT = -20.0
"""Log-probability of a character: any known word is likelier than its spelling."""


def write_tokenizer(folder: Path, captions: Iterable[str], vocabulary: int) -> int:
    """Write tokenizer.json and tokenizer_config.json as a T5 checkpoint has them; returns the vocabulary's size."""
    splitter = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    counts = Counter(
        word for caption in sorted(set(captions)) for word, _ in splitter.pre_tokenize_str(caption.lower())
    )
    letters = ["▁", *(c for c in string.printable if not c.isspace() and not c.isupper())]
    words = [word for word, _ in counts.most_common() if word not in letters][
        : vocabulary - len(letters) - len(SPECIAL)
    ]
    total = sum(counts.values())
    pieces = [(name, 0.0) for name in SPECIAL] + [(letter, SPELT) for letter in letters]
    pieces += [(word, math.log(counts[word] / total)) for word in words]
    tokenizer = Tokenizer(Unigram(pieces, unk_id=SPECIAL.index("<unk>")))
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=["$A", "</s>"], pair=["$A", "</s>", "$B", "</s>"], special_tokens=[("</s>", SPECIAL.index("</s>"))]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "extra_ids": 0}
    config = names | {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": LONGEST_TOKENS}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    return tokenizer.get_vocab_size()
