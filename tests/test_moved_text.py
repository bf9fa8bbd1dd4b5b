"""Another text encoder under a base: any of transformers, its projection learnt and saved with the adapter."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from text_encoder_models import KINDS, write_text_encoder
from torch.testing import assert_close
from training_fixtures import quick, write_dataset

from adapters import adapter_files
from adapters.family.load import load_lm
from adapters.lora import attach
from adapters.merge import merge
from adapters.sampler import AdapterSpec, Sampler
from configs.errors import UserError
from configs.sample import SampleSettings
from configs.train import LoraSettings
from data_prep.base_files import resolve_base
from data_prep.move import WORDS, Move
from data_prep.prepared import PreparedDataset
from data_prep.text_encoders.port import load_text_encoder
from data_prep.text_encoders.transformers_text import choose, load
from finetune.dataset_fit import check_fit
from finetune.judge.findings import Verdict
from finetune.judge.flow import Judged
from finetune.judge.keep import store
from finetune.judge.subject import Candidate, open_subject
from finetune.run_log import read_log
from finetune.train import train

WIDTH = 20
QUIET = SampleSettings(duration_sec=0.4, temperature=0.0, guidance=3.0)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("encoders")
    return {kind: write_text_encoder(folder / kind, kind, WIDTH) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_states_of_its_text_side(kind: str, encoders: dict[str, Path]) -> None:
    import transformers

    choice = choose(str(encoders[kind]))
    encoder = load(choice)
    assert choice.width == encoder.width == WIDTH and choice.fingerprint == encoder.fingerprint
    texts = ["slow piano", "a loud electric guitar and drums"]
    found = encoder.encode(texts)
    assert [len(states) for states in found] == [len(encoder.tokenizer(text).input_ids) for text in texts]
    whole = {
        "t5": lambda: transformers.T5ForConditionalGeneration.from_pretrained(encoders["t5"]).encoder,
        "flan": lambda: transformers.T5EncoderModel.from_pretrained(encoders["flan"]),
        "long-t5": lambda: transformers.LongT5ForConditionalGeneration.from_pretrained(encoders["long-t5"]).encoder,
        "clap": lambda: transformers.ClapModel.from_pretrained(encoders["clap"]).text_model,
        "bert": lambda: transformers.BertModel.from_pretrained(encoders["bert"]),
    }[kind]()
    ids = torch.tensor([encoder.tokenizer(texts[1]).input_ids])
    with torch.no_grad():
        assert_close(found[1], whole.eval()(input_ids=ids).last_hidden_state[0], rtol=1e-4, atol=1e-5)
    assert not encoder.is_too_long("slow piano") and encoder.is_too_long("piano " * 600)
    assert len(encoder.encode(["piano " * 600])[0]) == encoder.max_tokens <= 512


def test_the_projection_is_new_and_learns_whole(mono_base: Path, encoders: dict[str, Path]) -> None:
    own = resolve_base(str(mono_base))
    files = own.moved(Move(text=choose(str(encoders["t5"]))))
    assert files.spec.text_width == WIDTH and files.spec.learns_whole == (WORDS,)
    lm, before = load_lm(files), load_lm(own)
    adapter = attach(lm, LoraSettings(rank=2, targets=["attention", "text_projection"]))
    whole = [name for name in adapter.parameters() if name.startswith("whole.")]
    assert whole == ["whole.enc_to_dec_proj.weight", "whole.enc_to_dec_proj.bias"]
    assert all(adapter.parameters()[name].requires_grad for name in whole)
    assert not any("enc_to_dec_proj" in module for module in adapter.modules)  # no low rank on top of it
    assert lm.get_parameter("enc_to_dec_proj.weight").shape == (own.spec.hidden, WIDTH)
    frozen = dict(before.named_parameters())
    for name, value in lm.named_parameters():
        if name in frozen and "enc_to_dec_proj" not in name:
            assert torch.equal(value, frozen[name]), name
    again = load_lm(files).get_parameter("enc_to_dec_proj.weight")
    assert torch.equal(again, lm.get_parameter("enc_to_dec_proj.weight"))  # from its name alone
    with pytest.raises(UserError, match="reach only what learns whole"):
        attach(load_lm(files), LoraSettings(targets=["text_projection"]))


@pytest.mark.usefixtures("fresh_processes")
@pytest.mark.parametrize("kind, precision", [("clap", "fp32"), ("t5", "bf16")])
def test_trained_saved_and_played(
    kind: str, precision: str, mono_base: Path, encoders: dict[str, Path], tmp_path: Path
) -> None:
    place = tmp_path / "their encoder"
    shutil.copytree(encoders[kind], place)
    move = Move(text=choose(str(place)))
    data = write_dataset(tmp_path / "data", mono_base, train=(20, 26, 12), validation=(18,), move=move)
    run = tmp_path / "run"
    adapter = train(data, run, quick(steps=8, precision=precision, ema_decay=0.5, checkpointing=True))
    log = read_log(run / "log.jsonl")
    steps = [line["loss"] for line in log if line["kind"] == "step"]
    assert steps[-1] < steps[0]
    assert next(line for line in log if line["kind"] == "proof")["fresh_difference"] < (
        1e-4 if precision == "fp32" else 5e-2
    )
    told = json.loads((adapter / "woodshed.json").read_text())
    assert told["moved"]["text_encoder"] == {
        "name": "their encoder", "fingerprint": move.text.fingerprint if move.text else "", "width": WIDTH
    }  # fmt: skip
    assert str(tmp_path) not in (adapter / "woodshed.json").read_text()
    loaded = adapter_files.load(adapter)
    start = load_lm(resolve_base(str(mono_base)).moved(move)).get_parameter("enc_to_dec_proj.weight")
    assert loaded.whole["enc_to_dec_proj.weight"].dtype == torch.float32
    assert not torch.equal(loaded.whole["enc_to_dec_proj.weight"], start)

    files = resolve_base(str(mono_base))
    take = Sampler.load(files, [AdapterSpec(adapter)], QUIET).sample(["slow piano"])[0]  # the run knows the place
    other = Sampler.load(files, [AdapterSpec(adapter)], QUIET).sample(["loud drums"])[0]
    assert take.codes.shape == (4, 20) and (take.codes != other.codes).any()
    with pytest.raises(UserError, match="cannot be merged"):
        merge(files, [(loaded, 1.0)], tmp_path / "merged")

    alone = tmp_path / "alone"  # an adapter that came without its run
    shutil.copytree(adapter, alone)
    with pytest.raises(UserError, match="text encoder their encoder, a folder that is not known here"):
        Sampler.load(files, [AdapterSpec(alone)], QUIET)
    again = Sampler.load(files, [AdapterSpec(alone)], QUIET.model_copy(update={"text_encoder": str(place)}))
    assert (again.sample(["slow piano"])[0].codes == take.codes).all()
    wrong = write_text_encoder(tmp_path / "wrong", kind, WIDTH, seed=1)
    with pytest.raises(UserError, match="not the text encoder that was trained with"):
        Sampler.load(files, [AdapterSpec(alone)], QUIET.model_copy(update={"text_encoder": str(wrong)}))
    own = Sampler.load(files, [], QUIET)  # the base alone keeps its own
    assert own.engine.spec.text_width == files.spec.text_width != WIDTH

    earlier = Candidate(4, loaded.updates, {name: value + 1 for name, value in loaded.whole.items()})
    verdict = Verdict("x", "debug", "Good.", [], [], "", 4, 1.0, "spectrum", {"mode": "quick"}, 1.0)
    said = store(Judged(open_subject(run), verdict, earlier, [], [], [], 1000, 50.0, None))
    assert said[0] == "the adapter has the weights of step 4 now"
    assert_close(adapter_files.load(adapter).whole, dict(earlier.whole), rtol=0, atol=0)


def test_what_cannot_be_used_is_one_sentence(mono_base: Path, encoders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    pickled = tmp_path / "pickled"
    shutil.copytree(encoders["bert"], pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    silent = tmp_path / "silent"
    shutil.copytree(encoders["bert"], silent)
    config = json.loads((silent / "config.json").read_text())
    (silent / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "hidden_size"}))
    for id, words in (
        (tmp_path / "empty", "safetensors are missing"),
        (pickled, "pickled weights only"),
        (silent, "does not say how wide"),
        (mono_base, "a whole MusicGen"),
        ("no/such-encoder", "not on this machine and the hub cannot be reached"),
    ):
        with pytest.raises(UserError, match=words):
            choose(str(id))
    with pytest.raises(UserError, match="cannot be moved to another text encoder"):
        resolve_base("debug-melody").moved(Move(text=choose(str(encoders["t5"]))))


def test_a_dataset_for_another_encoder_is_refused(mono_base: Path, encoders: dict[str, Path], tmp_path: Path) -> None:
    move = Move(text=choose(str(encoders["t5"])))
    dataset = PreparedDataset(write_dataset(tmp_path / "data", mono_base, train=(20,), validation=(), move=move))
    files = resolve_base(str(mono_base))
    check_fit(dataset, files.moved(move))
    with pytest.raises(UserError, match="text width"):
        check_fit(dataset, files)
    with pytest.raises(UserError, match="text encoder weights"):
        check_fit(dataset, files.moved(Move(text=choose(str(encoders["flan"])))))
    assert load_text_encoder(files.moved(move)).width == WIDTH
