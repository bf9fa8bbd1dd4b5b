"""The starter's own T5 tokenizer: a small unigram vocabulary learnt from the composer's captions.

Every printable character is a piece of its own, so any caption can be read, if not understood.
"""

import json
import string
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram
from tokenizers.trainers import UnigramTrainer

SPECIAL = ("<pad>", "</s>", "<unk>")
LONGEST_TOKENS = 128


def write_tokenizer(folder: Path, captions: Iterable[str], vocabulary: int) -> int:
    """Write tokenizer.json and tokenizer_config.json as a T5 checkpoint has them; returns the vocabulary's size."""
    tokenizer = Tokenizer(Unigram())
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation(), pre_tokenizers.Split("▁", "merged_with_next")]
    )
    tokenizer.decoder = decoders.Metaspace()
    trainer = UnigramTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        unk_token="<unk>",
        initial_alphabet=[c for c in string.printable if not c.isspace() and not c.isupper()],
        show_progress=False,
    )
    tokenizer.train_from_iterator(sorted(set(captions)), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=["$A", "</s>"], pair=["$A", "</s>", "$B", "</s>"], special_tokens=[("</s>", SPECIAL.index("</s>"))]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "extra_ids": 0}
    config = names | {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": LONGEST_TOKENS}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    return tokenizer.get_vocab_size()
