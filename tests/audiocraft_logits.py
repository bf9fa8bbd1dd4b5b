"""Run where audiocraft is installed: builds its own LMModel from a converted folder and writes its logits.

    python audiocraft_logits.py FOLDER INPUTS.safetensors LOGITS.safetensors

Only the frozen text encoder, which audiocraft would fetch, is left out: its states are given.
"""

import sys
from pathlib import Path

import torch
from audiocraft.models import builders  # pyright: ignore[reportMissingImports]
from audiocraft.modules import conditioners, transformer  # pyright: ignore[reportMissingImports]
from omegaconf import OmegaConf  # pyright: ignore[reportMissingImports]
from safetensors.torch import load_file, save_file


class NoTextEncoder:
    @staticmethod
    def from_pretrained(name: str) -> torch.nn.Module:
        return torch.nn.Identity()


def main(folder: Path, inputs: Path, logits: Path) -> None:
    given = load_file(inputs)
    conditioners.T5Tokenizer = conditioners.T5EncoderModel = NoTextEncoder
    conditioners.T5Conditioner.MODELS_DIMS["t5-base"] = given["text_states"].shape[2]
    transformer.set_efficient_attention_backend("torch")
    transformer._verify_xformers_memory_efficient_compat = lambda: None
    settings = OmegaConf.create((folder / "xp_cfg.yaml").read_text())
    settings.transformer_lm.memory_efficient = False  # the same arithmetic without a GPU's kernels
    settings.transformer_lm.custom = True
    lm = builders.get_lm_model(settings)
    lm.load_state_dict(load_file(folder / "state_dict.safetensors"))
    lm.eval()
    with torch.no_grad():
        states = lm.condition_provider.conditioners["description"].output_proj(given["text_states"])
        mask = torch.ones(states.shape[:2], dtype=torch.long)
        out = lm(given["codes"], [], {"description": (states, mask)})
    save_file({"logits": out.contiguous()}, logits)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
