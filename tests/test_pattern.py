"""The delay pattern against a slow reference, transformers' own, and itself backwards."""

import pytest
import torch
from transformers import MusicgenForCausalLM
from transformers.models.musicgen.configuration_musicgen import MusicgenDecoderConfig

from adapters.pattern import IGNORE, Delays
from data_prep.lm_spec import interleaved_lags

SPECIAL = 64
UNREAD = 999_999  # stands where nothing may be read; never a legal id


def delays(K, channels):
    return Delays(interleaved_lags(K, channels))


def slow_inputs_and_labels(codes, n_frames, special, channels):
    """Cell by cell, as the table in adapters/pattern.py is drawn."""
    B, K, T = codes.shape
    S = T + (K - 1) // channels
    inputs = torch.full((B, K, S), special)
    labels = torch.full((B, K, S), IGNORE)
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
    sequence = delays(K, channels).build(codes, SPECIAL)
    assert sequence.shape == (3, K, 1 + T + delays(K, channels).largest_lag)
    torch.testing.assert_close(delays(K, channels).revert(sequence), codes.long(), rtol=0, atol=0)


@pytest.mark.parametrize(("K", "channels"), CASES)
@pytest.mark.parametrize("T", [1, 5, 20])
def test_build_undoes_revert_and_revert_reads_only_data(K, channels, T):
    sequence = delays(K, channels).build(random_codes(2, K, T), SPECIAL)
    no_data = sequence == SPECIAL
    assert int((~no_data).sum()) == 2 * K * T
    codes = delays(K, channels).revert(sequence.masked_fill(no_data, UNREAD))
    assert not (codes == UNREAD).any()
    torch.testing.assert_close(delays(K, channels).build(codes, SPECIAL), sequence, rtol=0, atol=0)


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
    S = 1 + T + delays(K, channels).largest_lag
    _, mask = their_pattern(lm, started.reshape(2 * K, -1), S)
    ours = delays(K, channels).build(codes, SPECIAL)
    torch.testing.assert_close(ours, mask.reshape(2, K, S), rtol=0, atol=0)


def test_prompt_steps_are_those_transformers_would_go_on_from():
    config = MusicgenDecoderConfig(
        vocab_size=SPECIAL, num_codebooks=4, hidden_size=16, ffn_dim=16, num_attention_heads=2, num_hidden_layers=1
    )
    prompt = random_codes(1, 4, 6, torch.long)
    started = torch.cat([torch.full((1, 4, 1), SPECIAL), prompt], dim=2)
    kept, _ = their_pattern(MusicgenForCausalLM(config), started.reshape(4, -1), 40)
    ours = delays(4, 1).build(prompt, SPECIAL)[..., : 1 + 6]
    torch.testing.assert_close(ours[0], kept, rtol=0, atol=0)


@pytest.mark.parametrize(("K", "channels"), CASES)
def test_padded_batch_equals_slow_reference_and_reads_no_padding(K, channels):
    codes = random_codes(4, K, 12, torch.long)
    n_frames = torch.tensor([12, 1, 7, 3])
    for clip, length in zip(codes, n_frames.tolist(), strict=True):
        clip[:, length:] = UNREAD
    inputs, labels = delays(K, channels).inputs_and_labels(codes, n_frames, SPECIAL)
    slow_inputs, slow_labels = slow_inputs_and_labels(codes, n_frames, SPECIAL, channels)
    torch.testing.assert_close(inputs, slow_inputs, rtol=0, atol=0)
    torch.testing.assert_close(labels, slow_labels, rtol=0, atol=0)
    assert not (inputs == UNREAD).any() and not (labels == UNREAD).any()
    assert int((labels != IGNORE).sum()) == K * int(n_frames.sum())


def test_batch_row_equals_the_clip_alone():
    codes = random_codes(2, 4, 9)
    inputs, labels = delays(4, 1).inputs_and_labels(codes, torch.tensor([9, 4]), SPECIAL)
    alone_inputs, alone_labels = delays(4, 1).inputs_and_labels(codes[1:, :, :4], torch.tensor([4]), SPECIAL)
    S = alone_labels.shape[2]
    torch.testing.assert_close(labels[1:, :, :S], alone_labels, rtol=0, atol=0)
    torch.testing.assert_close(inputs[1:, :, :S], alone_inputs, rtol=0, atol=0)
    assert (labels[1, :, S:] == IGNORE).all()


def test_codebooks_that_cannot_be_shared_out_are_refused():
    with pytest.raises(ValueError, match="3 codebooks"):
        interleaved_lags(3, 2)
    with pytest.raises(ValueError, match="too few"):
        delays(4, 1).revert(torch.zeros(1, 4, 2, dtype=torch.long))


@pytest.mark.parametrize("lags", [(0, 0, 0), (0, 2, 1), (1, 0)])
def test_any_lags_are_undone(lags):
    pattern = Delays(lags)
    codes = random_codes(2, len(lags), 6)
    sequence = pattern.build(codes, SPECIAL)
    assert sequence.shape[2] == pattern.n_steps(6) == 1 + 6 + max(lags) and pattern.n_frames(sequence.shape[2]) == 6
    torch.testing.assert_close(pattern.revert(sequence), codes.long(), rtol=0, atol=0)
    frames = pattern.frame_of_cell(sequence.shape[2])
    for k in range(len(lags)):
        for t in range(6):
            assert frames[k, int(pattern.step_of_frame(6)[k, t])] == t


def test_parallel_is_a_start_step_and_the_codes():
    codes = random_codes(2, 3, 5)
    torch.testing.assert_close(Delays((0, 0, 0)).build(codes, SPECIAL)[..., 1:], codes.long(), rtol=0, atol=0)


def test_patterns_are_values():
    assert Delays.of([0, 1]) == Delays((0, 1)) and hash(Delays((0, 1))) == hash(Delays((0, 1)))
    for wrong in ((), (0, -1)):
        with pytest.raises(ValueError, match="lags"):
            Delays(wrong)
    with pytest.raises(ValueError, match="cannot arrange"):
        Delays((0, 1)).build(random_codes(1, 3, 4), SPECIAL)
