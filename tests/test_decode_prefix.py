"""A condition as a prefix (melody's form): the engine has a place for it and plays what transformers says."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import MusicgenMelodyForCausalLM
from transformers.models.musicgen_melody.configuration_musicgen_melody import MusicgenMelodyDecoderConfig

from adapters.decode.engine import Packing
from adapters.decode.sampling import Knobs, Sampling
from adapters.decode.tape import Layout, Tape
from adapters.family.musicgen.cross_attention import ConditionStates
from adapters.family.musicgen.engine import MusicgenEngine
from adapters.family.musicgen.format import spec_of_sizes

CPU = torch.device("cpu")
K, CARD, FRAMES = 4, 32, 12


@pytest.fixture(scope="module")
def holder() -> nn.Module:
    torch.manual_seed(0)
    config = MusicgenMelodyDecoderConfig(
        vocab_size=CARD, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, ffn_dim=32, num_codebooks=K
    )
    config.pad_token_id = config.bos_token_id = CARD
    decoder = MusicgenMelodyForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.normal_(0, 0.3)
    found = nn.Module()
    found.decoder = decoder
    return found


def slow(decoder: Any, prefix: Tensor, guidance: float) -> Tensor:
    """Greedy codes [K, T]: the whole sequence through transformers' decoder at every step."""
    sequence = torch.full((K, 1), CARD)
    codes = torch.full((K, FRAMES), -1)
    for step in range(FRAMES + K - 1):
        rows = [decoder(sequence, encoder_hidden_states=heard).logits[:, -1] for heard in (prefix, prefix * 0)]
        logits = rows[1] + (rows[0] - rows[1]) * guidance
        column = torch.full((K, 1), CARD)
        for k in range(K):
            if 0 <= step - k < FRAMES:
                codes[k, step - k] = column[k] = logits[k].argmax()
        sequence = torch.cat([sequence, column], dim=1)
    return codes


def test_a_prefix_is_heard_before_the_first_step(holder: nn.Module) -> None:
    prefix = torch.randn(1, 7, 16, generator=torch.Generator().manual_seed(1))
    engine = MusicgenEngine.pack(
        holder, spec_of_sizes(16, 2, 2, 32, card=CARD, text_width=16), Packing("plain", CPU, torch.float32)
    )
    knobs = Knobs(Sampling(3.0, 0.0), K, CARD, CPU)
    layout = Layout([torch.zeros(K, 0, dtype=torch.long)], [FRAMES], [0])
    tape = Tape(engine.pattern, CARD, knobs, [0], layout, CPU)
    steps = engine.start(tape, knobs)
    steps.states = ConditionStates([], prefix=torch.cat([prefix, torch.zeros_like(prefix)]))
    steps.positions = engine.weights.positions(7 + tape.n_columns)[7:]  # steps count on from the prefix
    with torch.no_grad():
        steps.advance(tape.n_columns)
        expected = slow(holder.decoder, prefix, 3.0)
    assert isinstance(expected, Tensor) and len(set(expected.flatten().tolist())) > 3
    torch.testing.assert_close(tape.codes()[0], expected)
