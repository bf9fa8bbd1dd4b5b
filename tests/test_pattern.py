"""The delay pattern against a slow reference, transformers' own, and itself backwards."""

import pytest
import torch
from transformers import MusicgenForCausalLM
from transformers.models.musicgen.configuration_musicgen import MusicgenDecoderConfig

from adapters import pattern

SPECIAL = 64
UNREAD = 999_999  # stands where nothing may be read; never a legal id


def slow_inputs_and_labels(codes, n_frames, special, channels):
    """Cell by cell, as the table in adapters/pattern.py is drawn."""
    B, K, T = codes.shape
    S = T + (K - 1) // channels
    inputs = torch.full((B, K, S), special)
    labels = torch.full((B, K, S), pattern.IGNORE)
    for b in range(B):
        for k in range(K):
            for t in range(int(n_frames[b])):
                label_step = t + k // channels
                labels[b, k, label_step] = codes[b, k, t]
                if label_step + 1 < S:
                    inputs[b, k, label_step + 1] = codes[b, k, t]
    return inputs, labels


def random_codes(B, K, T, dtype=torch.int16):
    return torch.randint(0, SPECIAL, (B, K, T), generator=torch.Generator().manual_seed(K * 100 + T), dtype=dtype)


def their_pattern(lm, rows, n_steps):
    return lm.build_delay_pattern_mask(rows, SPECIAL, max_length=n_steps)


CASES = [(4, 1), (8, 2), (1, 1), (2, 2)]


@pytest.mark.parametrize(("K", "channels"), CASES)
@pytest.mark.parametrize("T", [1, 2, 3, 7, 50])
def test_revert_undoes_build(K, channels, T):
    codes = random_codes(3, K, T)
    sequence = pattern.build(codes, SPECIAL, channels=channels)
    assert sequence.shape == (3, K, 1 + T + pattern.max_delay(K, channels))
    torch.testing.assert_close(pattern.revert(sequence, channels=channels), codes.long(), rtol=0, atol=0)


@pytest.mark.parametrize(("K", "channels"), CASES)
@pytest.mark.parametrize("T", [1, 5, 20])
def test_build_undoes_revert_and_revert_reads_only_data(K, channels, T):
    sequence = pattern.build(random_codes(2, K, T), SPECIAL, channels=channels)
    no_data = sequence == SPECIAL
    assert int((~no_data).sum()) == 2 * K * T
    codes = pattern.revert(sequence.masked_fill(no_data, UNREAD), channels=channels)
    assert not (codes == UNREAD).any()
    torch.testing.assert_close(pattern.build(codes, SPECIAL, channels=channels), sequence, rtol=0, atol=0)


@pytest.mark.parametrize(("K", "channels"), [(4, 1), (8, 2)])
@pytest.mark.parametrize("T", [4, 5, 33])
def test_equals_transformers_pattern(K, channels, T):
    config = MusicgenDecoderConfig(
        vocab_size=SPECIAL,
        num_codebooks=K,
        audio_channels=channels,
        hidden_size=16,
        ffn_dim=16,
        num_attention_heads=2,
        num_hidden_layers=1,
        pad_token_id=SPECIAL,
        bos_token_id=SPECIAL,
    )
    lm = MusicgenForCausalLM(config)
    codes = random_codes(2, K, T, torch.long)
    started = torch.cat([torch.full((2, K, 1), SPECIAL), codes], dim=2)
    S = 1 + T + pattern.max_delay(K, channels)
    _, mask = their_pattern(lm, started.reshape(2 * K, -1), S)
    ours = pattern.build(codes, SPECIAL, channels=channels)
    torch.testing.assert_close(ours, mask.reshape(2, K, S), rtol=0, atol=0)


def test_prompt_steps_are_those_transformers_would_go_on_from():
    config = MusicgenDecoderConfig(
        vocab_size=SPECIAL, num_codebooks=4, hidden_size=16, ffn_dim=16, num_attention_heads=2, num_hidden_layers=1
    )
    prompt = random_codes(1, 4, 6, torch.long)
    started = torch.cat([torch.full((1, 4, 1), SPECIAL), prompt], dim=2)
    kept, _ = their_pattern(MusicgenForCausalLM(config), started.reshape(4, -1), 40)
    ours = pattern.build(prompt, SPECIAL, channels=1)[..., : pattern.prompt_steps(6)]
    torch.testing.assert_close(ours[0], kept, rtol=0, atol=0)


@pytest.mark.parametrize(("K", "channels"), CASES)
def test_padded_batch_equals_slow_reference_and_reads_no_padding(K, channels):
    codes = random_codes(4, K, 12, torch.long)
    n_frames = torch.tensor([12, 1, 7, 3])
    for clip, length in zip(codes, n_frames.tolist(), strict=True):
        clip[:, length:] = UNREAD
    inputs, labels = pattern.inputs_and_labels(codes, n_frames, SPECIAL, channels=channels)
    slow_inputs, slow_labels = slow_inputs_and_labels(codes, n_frames, SPECIAL, channels)
    torch.testing.assert_close(inputs, slow_inputs, rtol=0, atol=0)
    torch.testing.assert_close(labels, slow_labels, rtol=0, atol=0)
    assert not (inputs == UNREAD).any() and not (labels == UNREAD).any()
    assert int((labels != pattern.IGNORE).sum()) == K * int(n_frames.sum())


def test_batch_row_equals_the_clip_alone():
    codes = random_codes(2, 4, 9)
    inputs, labels = pattern.inputs_and_labels(codes, torch.tensor([9, 4]), SPECIAL, channels=1)
    alone_inputs, alone_labels = pattern.inputs_and_labels(codes[1:, :, :4], torch.tensor([4]), SPECIAL, channels=1)
    S = alone_labels.shape[2]
    torch.testing.assert_close(labels[1:, :, :S], alone_labels, rtol=0, atol=0)
    torch.testing.assert_close(inputs[1:, :, :S], alone_inputs, rtol=0, atol=0)
    assert (labels[1, :, S:] == pattern.IGNORE).all()


def test_codebooks_that_cannot_be_shared_out_are_refused():
    with pytest.raises(ValueError, match="3 codebooks"):
        pattern.delays(3, 2)
    with pytest.raises(ValueError, match="too few"):
        pattern.revert(torch.zeros(1, 4, 2, dtype=torch.long), channels=1)
