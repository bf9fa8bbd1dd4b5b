"""The settings that audiocraft needs to build an LM of a base's size, and the page that says how to load it there.

Keys are those that audiocraft 1.3.0's `builders.get_lm_model` reads, values those of its published MusicGen settings
(config/model/lm/musicgen_lm.yaml, config/conditioner/text2music.yaml and chroma2music.yaml). Dropout and
the like are of no use at rest: off.
"""

import math
from typing import TYPE_CHECKING, Any

import yaml

from adapters.family.musicgen_melody.format import MelodySpec
from adapters.metadata import public_id

if TYPE_CHECKING:
    from data_prep.base_files import BaseFiles

CODEC = "facebook/encodec_32khz"
PADDING = {
    False: """\
audiocraft attends to padded text as zeros, transformers masks it: prompts of different lengths in one batch sound
slightly different in the two; one prompt alone does not.""",
    True: """Both read padded text as zeros: a prompt sounds slightly different beside a longer one than alone.""",
}
"""What a batch of prompts of different lengths means, by whether the model follows a melody."""


T5 = {
    "model": "t5",
    "t5": {"name": "t5-base", "finetune": False, "word_dropout": 0.0, "normalize_text": False},
}


def _chroma(spec: MelodySpec) -> dict[str, Any]:
    return {
        "model": "chroma_stem",
        "chroma_stem": {
            "sample_rate": spec.chroma.sample_rate_hz,
            "n_chroma": spec.chroma.n_chroma,
            "radix2_exp": round(math.log2(spec.chroma.n_fft)),
            "argmax": True,
            "match_len_on_eval": False,
            "eval_wavs": None,
            "n_eval_wavs": 100,
            "cache_path": None,
        },
    }


def xp_cfg(files: "BaseFiles") -> str:
    """The YAML of audiocraft's `xp.cfg`."""
    spec = files.spec
    conditioners, melody = {"description": T5}, isinstance(spec, MelodySpec)
    if isinstance(spec, MelodySpec):
        conditioners = {"self_wav": _chroma(spec), **conditioners}
    settings = {
        "solver": "musicgen",
        "lm_model": "transformer_lm",
        "device": "cpu",
        "dtype": "float32",
        "sample_rate": spec.sample_rate_hz,
        "channels": spec.channels,
        "compression_model_checkpoint": f"//pretrained/{CODEC}",
        "interleave_stereo_codebooks": {"use": spec.channels == 2, "per_timestep": False},
        "codebooks_pattern": {
            "modeling": "delay",
            "delay": {
                "delays": list(spec.lags),
                "flatten_first": 0,
                "empty_initial": 0,
            },
        },
        "transformer_lm": {
            "dim": spec.hidden,
            "num_heads": spec.heads,
            "num_layers": spec.layers,
            "hidden_scale": spec.ffn / spec.hidden,
            "n_q": spec.n_codebooks,
            "card": spec.card,
            "dropout": 0.0,
            "emb_lr": None,
            "activation": spec.activation,
            "norm_first": True,
            "bias_ff": False,
            "bias_attn": False,
            "bias_proj": False,
            "past_context": None,
            "causal": True,
            "custom": False,
            "memory_efficient": True,
            "attention_as_float32": False,
            "layer_scale": None,
            "positional_embedding": "sin",
            "xpos": False,
            "checkpointing": "none",
            "weight_init": None,
            "depthwise_init": None,
            "zero_bias_init": False,
            "norm": "layer_norm",
            "cross_attention": not melody,
            "qk_layer_norm": False,
            "qk_layer_norm_cross": False,
            "attention_dropout": None,
            "kv_repeat": 1,
            "two_step_cfg": False,
        },
        "classifier_free_guidance": {"training_dropout": 0.0, "inference_coef": 3.0},
        "attribute_dropout": {},
        "fuser": {
            "cross_attention_pos_emb": False,
            "cross_attention_pos_emb_scale": 1,
            "sum": [],
            "prepend": list(conditioners) if melody else [],
            "cross": [] if melody else list(conditioners),
            "input_interpolate": [],
        },
        "conditioners": conditioners,
        "dataset": {"segment_duration": 30},
    }
    return yaml.safe_dump(settings, sort_keys=False)


def readme(files: "BaseFiles", state: str, config: str) -> str:
    """How to load the folder in audiocraft."""
    return f"""\
# {public_id(files)}, tuned, for audiocraft

`{state}` holds the tensors of audiocraft's `LMModel`, `{config}` its settings. audiocraft reads pickles; made here, on
your own machine, from these two files, one is as safe as they are:

```python
from pathlib import Path

import torch
from safetensors.torch import load_file

torch.save({{"xp.cfg": Path("{config}").read_text(), "best_state": load_file("{state}")}}, "state_dict.bin")
torch.save({{"pretrained": "{CODEC}"}}, "compression_state_dict.bin")
```

Run that in this folder, then:

```python
from audiocraft.models import MusicGen

model = MusicGen.get_pretrained("path/to/this/folder")
```

{PADDING[isinstance(files.spec, MelodySpec)]}
"""
