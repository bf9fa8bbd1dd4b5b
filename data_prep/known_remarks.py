"""Remarks of libraries that we understand and that mean nothing here, dropped at their source, each by its beginning.

A person cannot tell them from trouble. Anything else that a library says comes through.
"""

import logging

KNOWN = {
    # MusicGen's padding and start token is the codebook's size itself: one beyond the ids of the codec, by design.
    "transformers.configuration_utils": ("Model config: pad_token_id must be", "Model config: bos_token_id must be"),
    # An optional package with a faster product for nf4 on a CPU; without it the built-in one is used.
    "bitsandbytes.backends.cpu.ops": ("Failed to load CPU gemm_4bit_forward from kernels-community",),
    # Of every int8 product whose input is not fp16: that is how it works.
    "bitsandbytes.autograd._functions": ("MatMul8bitLt: inputs will be cast",),
}


class _Known(logging.Filter):
    """Drops records that begin in one of these ways."""

    def __init__(self, beginnings: tuple[str, ...]) -> None:
        super().__init__()
        self.beginnings = beginnings

    def filter(self, record: logging.LogRecord) -> bool:
        """True for every other record."""
        return not record.getMessage().startswith(self.beginnings)


def drop_known_remarks() -> None:
    """Have the remarks of KNOWN dropped from now on."""
    for name, beginnings in KNOWN.items():
        logger = logging.getLogger(name)
        if not any(isinstance(there, _Known) for there in logger.filters):
            logger.addFilter(_Known(beginnings))
