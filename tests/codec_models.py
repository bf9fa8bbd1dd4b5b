"""Every codec of transformers that stands behind the port, small and in its true size, with random weights."""

from pathlib import Path
from typing import Any

import torch

HUBERT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
          "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "conv_dim": [8] * 7}  # fmt: skip
BERT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
        "feature_projection_input_dim": 160, "conv_depthwise_kernel_size": 5}  # fmt: skip
DAC_16 = {"downsampling_ratios": [2, 4, 5, 8], "sampling_rate": 16_000, "n_codebooks": 12}
DAC_24 = {"downsampling_ratios": [2, 4, 5, 8], "sampling_rate": 24_000, "n_codebooks": 32}
DAC_44 = {"downsampling_ratios": [2, 4, 8, 8], "sampling_rate": 44_100, "n_codebooks": 9}
ENCODEC_48 = {
    "sampling_rate": 48_000, "audio_channels": 2, "normalize": True, "chunk_length_s": 1.0, "overlap": 0.01,
    "norm_type": "time_group_norm", "use_causal_conv": False, "target_bandwidths": [3.0, 6.0, 12.0, 24.0],
}  # fmt: skip
SMALL_ENCODEC = {"num_filters": 2, "hidden_size": 8, "num_lstm_layers": 1, "codebook_size": 64}
SMALL_DAC = {"encoder_hidden_size": 2, "decoder_hidden_size": 32, "codebook_dim": 4, "codebook_size": 64}
SMALL = {
    "encodec-24": ("Encodec", SMALL_ENCODEC | {"target_bandwidths": [1.35, 2.7]}),
    "encodec-48": ("Encodec", SMALL_ENCODEC | ENCODEC_48 | {"num_filters": 4, "target_bandwidths": [0.9, 3.6]}),
    "dac-16": ("Dac", DAC_16 | SMALL_DAC | {"n_codebooks": 3}),
    "dac-24": ("Dac", DAC_24 | SMALL_DAC | {"n_codebooks": 4}),
    "dac-44": ("Dac", DAC_44 | SMALL_DAC),
    "mimi": ("Mimi", {"hidden_size": 16, "num_filters": 2, "codebook_size": 64, "codebook_dim": 8, "num_quantizers": 4,
             "vector_quantization_hidden_dimension": 8, "upsample_groups": 16, "num_hidden_layers": 2, "head_dim": 8,
             "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2, "sliding_window": 20}),
    "xcodec": ("Xcodec", {"codebook_size": 64, "target_bandwidths": [0.3, 1.2], "semantic_model_config":
               HUBERT | {"model_type": "hubert"}, "acoustic_model_config": {"model_type": "dac", "hidden_size": 16,
               "encoder_hidden_size": 2, "decoder_hidden_size": 32, "downsampling_ratios": [8, 5, 4, 2],
               "upsampling_ratios": [8, 5, 4, 2]}}),
    "xcodec2": ("Xcodec2", {"hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 8,
                "num_attention_heads": 4, "num_key_value_heads": 4, "encoder_hidden_size": 2, "quantization_dim": 80,
                "semantic_model_config": BERT | {"model_type": "wav2vec2-bert"}}),
}  # fmt: skip
TRUE = {
    "encodec-24": ("Encodec", {}),
    "encodec-48": ("Encodec", ENCODEC_48),
    "dac-16": ("Dac", DAC_16),
    "dac-24": ("Dac", DAC_24),
    "dac-44": ("Dac", DAC_44),
    "mimi": ("Mimi", {}),
    "xcodec": ("Xcodec", {}),
    "xcodec2": ("Xcodec2", {}),
}
"""As on the hub: facebook/encodec_24khz and _48khz, descript/dac_*khz, kyutai/mimi, Manel/X-Codec, HKUSTAudio's."""


def write_codec(folder: Path, name: str, sizes: dict[str, tuple[str, dict[str, Any]]] = SMALL) -> Any:
    """Save a random codec as transformers saves it; its codebooks and activations are not degenerate. Returns it."""
    import transformers

    family, changes = sizes[name]
    torch.manual_seed(0)
    config: Any = getattr(transformers, f"{family}Config")(**changes)
    model: Any = getattr(transformers, f"{family}Model")(config).eval()
    louder = {"Encodec": ("original0", 2.0), "Dac": ("weight", 5.0), "Xcodec": ("acoustic_decoder", 4.0),
              "Xcodec2": ("weight", 8.0), "Mimi": ("", 1.0)}  # fmt: skip
    part, factor = louder[family]
    for parameter_name, tensor in [*model.named_buffers(), *model.named_parameters()]:
        if parameter_name.rpartition(".")[2] in ("embed", "embed_sum", "embed_avg"):
            tensor.data.normal_()
        elif part in parameter_name and tensor.dim() > 1:
            tensor.data.mul_(factor)
    model.save_pretrained(folder)
    return model
