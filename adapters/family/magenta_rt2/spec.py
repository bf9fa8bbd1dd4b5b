"""What Magenta RealTime 2 is, as far as others need to know without loading it. No torch here.

Groups of modules that an adapter may sit on, over names of `adapters.family.magenta_rt2.lm.MagentaLM`: every one of
these is a plain linear map.
"""

from dataclasses import dataclass

from data_prep.codec.spectrostream.shape import CHANNELS, HOP_SAMPLES, SAMPLE_RATE_HZ
from data_prep.lm_spec import TEXT, ConditionKind, LMSpec
from data_prep.magenta_rt2.sizes import BASE, N_NOTES, N_STYLE_TOKENS, SMALL, MagentaSpec

FAMILY = "magenta_rt2"
HUB_ID = "google/magenta-realtime-2"
LICENSE = "cc-by-4.0"
"""Of the official weights; an adapter inherits it."""
SIZES: dict[str, MagentaSpec] = {"mrt2_small": SMALL, "mrt2_base": BASE}
"""The official checkpoints by file name."""
FRAME_RATE_HZ = SAMPLE_RATE_HZ / HOP_SAMPLES

STYLE, NOTES, DRUMS, STRENGTHS, PREVIOUS = "style", "notes", "drums", "strengths", "previous"
OFTEN_LEFT_OUT = 0.5
"""Share of clips trained without notes, and without drums: most pieces are played without them."""
KINDS = (
    ConditionKind(TEXT, N_STYLE_TOKENS, per="caption", values="ids", n_entries=1),
    ConditionKind(
        STYLE, N_STYLE_TOKENS, per="frame", values="ids", enters="frames", rate_hz=FRAME_RATE_HZ, instead_of=TEXT
    ),
    ConditionKind(
        NOTES, N_NOTES, per="frame", values="ids", enters="frames", rate_hz=FRAME_RATE_HZ, dropout=OFTEN_LEFT_OUT
    ),
    ConditionKind(DRUMS, 1, per="frame", values="ids", enters="frames", rate_hz=FRAME_RATE_HZ, dropout=OFTEN_LEFT_OUT),
    ConditionKind(STRENGTHS, 3, per="clip", values="ids", n_entries=1),
)
"""What the model follows. A kind has one entry for all frames or one per frame; what is masked is unknown to it.
A text is the style tokens of its words; the style of the sound itself takes their place where it is given."""


@dataclass(frozen=True)
class MagentaLMSpec(LMSpec):
    """The description with all sizes beside it, which a model of random weights is made from."""

    sizes: MagentaSpec = SMALL


def lm_spec(sizes: MagentaSpec) -> MagentaLMSpec:
    """The description that every family gives: of the stack over frames, which adapters and memory are mostly about."""
    temporal = sizes.temporal
    previous = ConditionKind(PREVIOUS, sizes.n_codebooks, per="before", values="ids", n_entries=1)
    return MagentaLMSpec(
        family=FAMILY,
        codec="spectrostream",
        sample_rate_hz=SAMPLE_RATE_HZ,
        hop_samples=HOP_SAMPLES,
        channels=CHANNELS,
        n_codebooks=sizes.n_codebooks,
        card=sizes.card,
        lags=(0,) * sizes.n_codebooks,
        hidden=temporal.width,
        layers=temporal.layers,
        heads=temporal.heads,
        ffn=temporal.hidden,
        conditions=(*KINDS, previous),
        window_sec=temporal.layers * sizes.window_frames / FRAME_RATE_HZ,
        sizes=sizes,
    )


ATTENTION = r"(q_proj|k_proj|v_proj|out_proj)"
FEED_FORWARD = r"(fc1|fc2)"
TEMPORAL_LAYER = r"temporal\.layers\.\d+\."
GROUPS = {
    "temporal_attention": rf"{TEMPORAL_LAYER}self_attn\.{ATTENTION}",
    "cross_attention": rf"{TEMPORAL_LAYER}cross_attn\.{ATTENTION}",
    "ffn": rf"{TEMPORAL_LAYER}ffn\.{FEED_FORWARD}",
    "depth": rf"depth\.layers\.\d+\.(self_attn\.{ATTENTION}|ffn\.{FEED_FORWARD})",
    "style_projection": r"source\.style_proj",
    "depth_adapter": r"depth\.adapter",
    "heads": r"depth\.heads\.\d+",
}
"""The stack over frames: its attention to the past, to the conditions, its feed-forward. The stack over levels. The
projection of the style. What stands between the two stacks (absent where they are equally wide). The logits."""
ALIASES = {"attention": ("temporal_attention", "cross_attention"), "text_projection": ("style_projection",)}
"""What presets for every family call some of them."""
