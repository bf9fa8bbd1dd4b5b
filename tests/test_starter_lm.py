"""The LM trainer's parts and the exported folder, on models of a few thousand weights and invented tokens."""

import copy
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from warm_processes import both_ended

pytest.importorskip("vector_quantize_pytorch", reason="the recipe's own dependency (group `recipe`)")

from adapters.family.load import load_lm
from data_prep.base_files import resolve_base
from data_prep.codec.registry import load_base_codec
from data_prep.text_encoder import TextEncoder
from finetune.codec_train.model import CodecModel
from starter.recipe.captions import captions, with_strange_words
from starter.recipe.compose import compose
from starter.recipe.export import export
from starter.recipe.lm_model import TextToCodes
from starter.recipe.sizes import CODEC_SIZES, LM_SIZES
from starter.recipe.stage import load_module
from starter.recipe.tokens import Tokens
from starter.recipe.train_lm import build, crop_frames, hidden_steps, loss_of_step, make_optimizers, set_lr, train_lm

CODEC = replace(CODEC_SIZES["cpu"], upsampling=(5, 4, 4, 4), filters=2, width=12, codebook_dim=6, card=16)
LM = replace(
    LM_SIZES["cpu"], hidden=16, layers=2, heads=2, ffn=32, text_width=12, text_layers=1, text_heads=2, text_kv=4,
    vocabulary=200, crops_sec=(0.3, 0.4), batch_frames=80, lr=1e-2, steps=60, warmup_steps=5, context_dropout=0.2,
)  # fmt: skip


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    """Pieces whose codes follow from the caption: drums or none decides every code."""
    folder = tmp_path_factory.mktemp("tokens")
    facts: list[dict[str, Any]] = []
    for seed in range(40):
        piece = compose(seed)
        place = {"first_frame": 80 * seed, "n_frames": 80, "captions": captions(piece, 3)}
        facts.append(piece.facts() | place)
    codes = np.concatenate([np.full((4, 80), 3 if fact["drums"] else 9) for fact in facts], axis=1)
    np.save(folder / "codes.npy", codes.astype(np.int16))
    (folder / "pieces.json").write_text(json.dumps(facts))
    return Tokens(folder)


@pytest.fixture(scope="module")
def trained(tokens: Tokens, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lm")
    assert train_lm(tokens, folder, LM, CODEC, minutes=1) == LM.steps
    return folder


@pytest.fixture(scope="module")
def base(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CodecModel, TextToCodes]:
    torch.manual_seed(0)
    codec = CodecModel(CODEC)
    codec.train()
    codec(torch.randn(4, 1, 3200), quantize=True)
    lm = build(trained, LM, CODEC)
    load_module(trained, "model", lm)
    folder = tmp_path_factory.mktemp("base") / "weights"
    return export(codec.eval(), lm, trained, folder), codec, lm


def test_it_learns_to_follow_the_caption(tokens: Tokens, trained: Path) -> None:
    lines = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["ce0"] < 0.3  # without the caption: 0.69


def test_hidden_steps_are_not_heard(tokens: Tokens, trained: Path) -> None:
    lm = build(trained, LM, CODEC).eval()
    codes, said, facts = tokens.batch(5, n=4, n_frames=20, dropout=0.0)
    hidden = hidden_steps(3, replace(LM, context_dropout=1.0), 4, n_steps=23)
    assert hidden.any() and not hidden.all()
    assert not hidden_steps(3, replace(LM, context_dropout=0.0), 4, n_steps=23).any()
    everything = torch.ones(4, 23, dtype=torch.bool)
    for steps, heard in ((everything, False), (hidden, True), (None, True)):
        lm.zero_grad()
        lm(codes, said, facts, steps)[0].sum().backward()
        embeddings: Any = lm.lm.decoder.model.decoder.embed_tokens
        assert bool(embeddings[0].weight.grad[: CODEC.card].any()) is heard


def test_what_captions_say_teaches_the_text_encoder(tokens: Tokens, trained: Path) -> None:
    lm = build(trained, LM, CODEC)
    encoder: Any = lm.text_encoder
    codes, said, facts = tokens.batch(5, n=4, n_frames=20, dropout=0.0)
    sums = []
    for words in (said, ["", *said[1:]], [""] * 4):
        lm.zero_grad()
        told = lm(codes, words, facts)[1]
        assert set(told) == {"family", "manner", "drums", "tempo", "countdown", "beat"}
        told = {name: told[name] for name in ("family", "manner", "drums", "tempo")}
        sum(told.values(), torch.zeros(())).backward()
        sums.append(sum(value.item() for value in told.values()))
        assert bool(encoder.shared.weight.grad.any()) is any(words)
    assert sums[0] != sums[1]
    assert sums[2] == 0


def test_crops_come_in_every_length_and_often_from_the_beginning(tokens: Tokens) -> None:
    assert {crop_frames(step, LM) for step in range(20)} == {15, 20}
    counting = copy.copy(tokens)
    counting.codes = np.tile(np.arange(80, dtype=np.int16), (4, len(tokens)))
    firsts = counting.batch(5, n=60, n_frames=20, dropout=0.0)[0][:, 0, 0]
    assert 15 <= int((firsts == 0).sum()) <= 35
    assert 5 < int(firsts.max()) <= 80 - 50 - 20  # the second that rings out is left out


def test_words_of_captions_are_pieces_and_others_are_spelt(tokens: Tokens, trained: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(trained / "tokenizer.json"))
    assert tokenizer.get_vocab_size() <= LM.vocabulary
    known = tokens.facts[0]["captions"][0].split(",")[0]
    assert len(tokenizer.encode(known).tokens) == len(known.split()) + 1
    assert tokenizer.encode("zyx").tokens == ["▁", "z", "y", "x", "</s>"]
    assert tokenizer.decode(tokenizer.encode("A slow, zyx waltz").ids) == "a slow, zyx waltz"


def test_made_up_names_are_added_now_and_then() -> None:
    rng = np.random.default_rng(0)
    said = [with_strange_words("slow waltz", rng) for _ in range(400)]
    assert all("slow waltz" in one for one in said)
    assert 40 <= sum(one != "slow waltz" for one in said) <= 120


def test_every_parameter_has_one_optimizer(trained: Path) -> None:
    model = build(trained, LM, CODEC)
    held = [p for o in make_optimizers(model, LM).values() for group in o.param_groups for p in group["params"]]
    assert sorted(map(id, held)) == sorted(map(id, model.parameters()))


def test_with_and_without_drums_are_drawn_equally_often(tokens: Tokens) -> None:
    """Within each manner that has both; no manner more often than it is composed."""
    drawn = tokens.batch(0, n=20_000, n_frames=5, dropout=0.0)[2]
    composed = Counter(fact["manner"] for fact in tokens.facts)
    kinds = {(fact["manner"], fact["drums"]) for fact in tokens.facts}
    both = [manner for manner in composed if {(manner, True), (manner, False)} <= kinds]
    assert both
    for manner, count in composed.items():
        with_drums = [fact["drums"] for fact in drawn if fact["manner"] == manner]
        assert len(with_drums) / len(drawn) == pytest.approx(count / len(tokens), abs=0.02)
        if manner in both:
            assert sum(with_drums) / len(with_drums) == pytest.approx(0.5, abs=0.08)


def test_two_processes_take_the_mean_of_their_steps(tokens: Tokens, tmp_path: Path) -> None:
    """Against one process that hears both halves: the same weights after three steps."""
    program = """
import sys
from dataclasses import replace
from pathlib import Path
from test_starter_lm import CODEC, LM, Tokens, train_lm
train_lm(Tokens(Path(sys.argv[1])), Path(sys.argv[2]), replace(LM, steps=3), CODEC, minutes=1)
"""
    size, words = replace(LM, steps=3), (tokens.folder, tmp_path / "team")
    codes, said = both_ended(program, *words, folder=tmp_path, TORCHELASTIC_RUN_ID="test")
    assert codes == [0, 0], said

    torch.manual_seed(0)
    reference = build(tmp_path / "team", size, CODEC)
    optimizers = make_optimizers(reference, size)
    for step in range(3):
        set_lr(optimizers.values(), size, step / size.steps, step)
        for optimizer in optimizers.values():
            optimizer.zero_grad()
        for rank in range(2):
            (loss_of_step(reference, tokens, size, step, rank)[0] / 2).backward()
        torch.nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
        for optimizer in optimizers.values():
            optimizer.step()
    trained = load_module(tmp_path / "team", "model", build(tmp_path / "team", size, CODEC))
    for name, weight in reference.state_dict().items():
        assert_close(trained.state_dict()[name], weight, rtol=1e-3, atol=1e-4, msg=name)


def test_batches_are_a_function_of_the_step(tokens: Tokens) -> None:
    codes, said, facts = tokens.batch(5, n=8, n_frames=20, dropout=0.5)
    again, said_again, facts_again = tokens.batch(5, n=8, n_frames=20, dropout=0.5)
    assert torch.equal(codes, again)
    assert (said, facts) == (said_again, facts_again)
    assert "" in said
    assert any(said)
    assert codes.shape == (8, 4, 20)


def test_the_folder_is_a_base_like_any_other(base: tuple[Path, CodecModel, TextToCodes]) -> None:
    folder, _, model = base
    files = resolve_base(str(folder))
    assert (files.spec.n_codebooks, files.spec.card, files.spec.frame_rate, files.spec.sample_rate_hz) == (
        4,
        16,
        50,
        16_000,
    )
    assert all(path.stat().st_size < 12 * 2**20 for path in files.weight_files)
    lm = load_lm(files)
    inputs = torch.randint(16, (1, 4, 12))
    caption = "slow waltz, piano, no drums, 90 bpm"
    states = TextEncoder.load(files).encode([caption])[0]
    with torch.no_grad():
        conditions = model.conditions([caption])
        assert_close(states, conditions["text"].values[0], rtol=0.02, atol=0.02)
        assert_close(lm(inputs, conditions), model.lm(inputs, conditions), rtol=0.02, atol=0.02)
    audio = 0.1 * torch.randn(1, 3200)
    codes = load_base_codec(files).encode([audio])[0]
    assert codes.shape == (4, 10)


def test_transformers_generates_from_it(base: tuple[Path, CodecModel, TextToCodes]) -> None:
    from transformers import AutoProcessor, MusicgenForConditionalGeneration

    folder = base[0]
    model: Any = MusicgenForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(folder)
    inputs = processor(text=["fast rock, organ, with drums, 140 bpm"], return_tensors="pt")
    audio = model.generate(**inputs, max_new_tokens=10)
    assert audio.shape[:2] == (1, 1)
    assert audio.isfinite().all()


@pytest.mark.parametrize("name", sorted(CODEC_SIZES))
def test_each_size_is_small_enough_to_ship(name: str) -> None:
    """24 MB in half precision, codebooks included."""
    from transformers import EncodecModel, T5EncoderModel

    from adapters.family.musicgen.format import FORMAT
    from adapters.family.musicgen.lm import MusicgenLM
    from finetune.codec_train.model import encodec_config
    from starter.recipe.lm_model import musicgen_config

    codec = encodec_config(CODEC_SIZES[name], CODEC_SIZES[name].codebook_dim)
    config: Any = musicgen_config(LM_SIZES[name], codec, LM_SIZES[name].vocabulary)
    with torch.device("meta"):
        parts = (
            EncodecModel(codec),
            MusicgenLM(FORMAT.spec(Path(), config.to_dict()), config),
            T5EncoderModel(config.text_encoder),
        )
    assert sum(2 * tensor.numel() for part in parts for tensor in part.state_dict().values()) <= 24e6
