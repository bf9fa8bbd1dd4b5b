"""The melody LM against transformers' whole model: logits, loss, loading; adapters that plain peft loads."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from adapters.conditions import batch_conditions
from adapters.family.load import load_lm
from adapters.family.musicgen_melody.format import MelodySpec
from adapters.family.port import family_of
from adapters.pattern import IGNORE
from data_prep.base_files import BaseFiles, resolve_base
from data_prep.chroma_shape import ChromaShape
from tests.melody_fixtures import a_melody, melody_base, states_of, token_ids, whole_model

FRAMES = 9


@pytest.fixture(scope="module", params=[1, 2], ids=["mono", "stereo"])
def base(request, tmp_path_factory) -> BaseFiles:
    return melody_base(tmp_path_factory.mktemp("melody"), request.param)


@pytest.fixture(scope="module")
def model(base: BaseFiles) -> Any:
    return whole_model(base)


def codes_of(base: BaseFiles, rows: int) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, base.spec.card, (rows, base.spec.n_codebooks, FRAMES), generator=generator)


def test_the_spec_says_what_the_models_files_say(base: BaseFiles) -> None:
    spec = base.spec
    assert isinstance(spec, MelodySpec) and spec.family == "musicgen_melody"
    assert spec.melody.n_entries == 235 and spec.melody.rate_hz == 7.8125 and spec.melody.enters == "prefix"
    assert spec.melody.made_with == ChromaShape(n_fft=2048)
    assert family_of(base).name == "musicgen_melody"
    assert resolve_base(str(base.folder)).spec == spec


@pytest.mark.parametrize("melody", [None, 10, 235, 300])
@pytest.mark.parametrize("text", [True, False])
def test_logits_are_the_whole_models(base: BaseFiles, model: Any, melody: int | None, text: bool) -> None:
    lm = load_lm(base)
    codes, ids = codes_of(base, 2), [token_ids(5, 1), token_ids(5, 2)]
    inputs, _ = lm.inputs_and_labels(codes, torch.tensor([FRAMES, FRAMES]))
    rows: list[dict[str, Tensor]] = [{}, {}]
    features = None
    if melody is not None:
        features = torch.stack([a_melody(melody, 1), a_melody(melody, 2)])
        rows = [{"melody": row} for row in features]
    if text:
        rows = [{**row, "text": states_of(model, own)} for row, own in zip(rows, ids, strict=True)]
    given: dict[str, Any] = {"input_ids": torch.stack(ids), "attention_mask": torch.ones(2, 5, dtype=torch.long)}
    if not text:  # the null text of the references: one token that is masked
        given = {"input_ids": torch.stack(ids)[:, :1], "attention_mask": torch.zeros(2, 1, dtype=torch.long)}
    with torch.no_grad():
        expected = model(**given, input_features=features, decoder_input_ids=inputs.flatten(0, 1)).logits
        found = lm(inputs, batch_conditions(rows, lm.spec))
    expected = expected.view(2, lm.n_codebooks, -1, lm.card)[:, :, -inputs.shape[2] :]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_rows_have_conditions_of_their_own(base: BaseFiles, model: Any) -> None:
    lm, text = load_lm(base), states_of(model, token_ids(5))
    rows = [{"text": text, "melody": a_melody(235)}, {"text": text}, {"melody": a_melody(235)}, {}]
    inputs, _ = lm.inputs_and_labels(codes_of(base, 1).expand(4, -1, -1), torch.tensor([FRAMES] * 4))
    with torch.no_grad():
        together = lm(inputs, batch_conditions(rows, lm.spec))
        whole = batch_conditions([rows[0]] * 2, lm.spec)
        dropped = lm(inputs[:2], whole.dropped(torch.tensor([False, True]), ["text"]))
        melodyless = lm(inputs[:2], whole.dropped(torch.tensor([False, True]), ["melody"]))
    for one in range(4):
        for other in range(one):
            assert (together[one] - together[other]).abs().max() > 1e-3
    torch.testing.assert_close(dropped, together[[0, 2]], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(melodyless, together[[0, 1]], rtol=1e-5, atol=1e-5)


def test_the_loss_is_the_whole_models(base: BaseFiles, model: Any) -> None:
    lm = load_lm(base)
    ids, melodies = token_ids(5), a_melody(235)
    inputs, labels = lm.inputs_and_labels(codes_of(base, 1), torch.tensor([FRAMES]))
    conditions = batch_conditions([{"text": states_of(model, ids), "melody": melodies}], lm.spec)
    theirs = labels[0].T[None].clone()  # [1, S, K]
    theirs[theirs == IGNORE] = -100
    with torch.no_grad():
        logits = lm(inputs, conditions)[0]  # [K, S, card]
        ours = torch.stack(
            [functional.cross_entropy(logits[k], labels[0, k], ignore_index=IGNORE) for k in range(lm.n_codebooks)]
        )
        model.decoder.config.pad_token_id = lm.spec.special
        expected = model(
            input_ids=ids[None],
            attention_mask=torch.ones(1, 5, dtype=torch.long),
            input_features=melodies[None],
            decoder_input_ids=inputs[0],
            labels=theirs,
        ).loss
    torch.testing.assert_close(ours.mean(), expected, rtol=1e-5, atol=1e-6)
