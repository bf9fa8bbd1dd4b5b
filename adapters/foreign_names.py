"""Tensor names of adapters that were made with other tools or on a part of the model, as peft on the whole model has.

Everything here is a renaming: no number changes, and a name that no rule knows stays as it is, to be refused.
"""

import re

from data_prep.families import formats

PREFIX = "base_model.model."
_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|module|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_PART = re.compile(
    r"\.(lora_A|lora_B)(?:\.[A-Za-z0-9_-]+)?\.weight$"
    r"|\.(lora_embedding_A|lora_embedding_B)(?:\.[A-Za-z0-9_-]+)?$"
    r"|\.(lora_magnitude_vector)(?:\.(?!weight$)[A-Za-z0-9_-]+)?(?:\.weight)?$"
)


def module_and_part(key: str) -> tuple[str, str] | None:
    """The module's name as it was saved, and which part of its LoRA this is; None where it is no part of one.

    peft's own prefix may be missing or doubled, `torch.compile` and data parallelism put names of theirs in between,
    and `named_parameters()` writes the adapter's name (`default`) into the key.
    """
    name = _WRAPPERS.sub("", key)
    while name.startswith(PREFIX):
        name = name.removeprefix(PREFIX)
    found = _PART.search(name)
    if found is None:
        return None
    part = next(part for part in found.groups() if part)
    return name[: found.start()], f"{part}.weight" if part in ("lora_A", "lora_B") else part


def in_whole_model(module: str) -> str:
    """A module's name in the whole model, where the adapter was made on the decoder or a part of it alone."""
    names = (format.whole_name(module) for format in formats())
    return next((name for name in names if name != module), module)
