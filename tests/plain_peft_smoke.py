"""An adapter in plain peft and transformers, with nothing of Woodshed: run by test_plain_peft.py in another Python.

    python plain_peft_smoke.py BASE ADAPTER INPUTS.safetensors LOGITS.safetensors [PACKAGES]

PACKAGES is a folder to import from, for a Python that was started without its site-packages.
"""

import importlib.util
import sys
import warnings


def main(base: str, adapter: str, inputs: str, logits: str) -> None:
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file, save_file
    from transformers import MusicgenForConditionalGeneration
    from transformers.modeling_outputs import BaseModelOutput

    given = load_file(inputs)
    codes = given["codes"]  # [B, K, S]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model = MusicgenForConditionalGeneration.from_pretrained(base)
        model = PeftModel.from_pretrained(model, adapter).eval()
    about_keys = [str(warning.message) for warning in told if "key" in str(warning.message).lower()]
    assert not about_keys, about_keys
    text = {
        "encoder_outputs": BaseModelOutput(last_hidden_state=given["text_states"]),
        "attention_mask": given["text_mask"],
    }
    with torch.no_grad():
        out = model(**text, decoder_input_ids=codes.reshape(-1, codes.shape[2]))
        audio = model.generate(**text, max_new_tokens=8, do_sample=False, guidance_scale=1.0)
    assert torch.isfinite(audio).all() and audio.abs().max() > 0
    save_file({"logits": out.logits.view(*codes.shape, -1).contiguous()}, logits)


if __name__ == "__main__":
    sys.path.extend(sys.argv[5:])
    for name in ("configs", "data_prep", "adapters", "finetune"):
        assert importlib.util.find_spec(name) is None, f"Woodshed's {name} can be imported: this would prove nothing"
    main(*sys.argv[1:5])
