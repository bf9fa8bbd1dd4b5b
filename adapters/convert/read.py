"""What a file or folder is, told by what it holds, and every kind of it read as an adapter."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from adapters.adapter_files import CONFIG, WEIGHTS, Adapter, load
from adapters.blend.describe import source_of
from adapters.convert.audiocraft import STATE, from_audiocraft
from adapters.convert.kohya import PREFIX, from_kohya
from adapters.extract import Extracted, extract
from adapters.family.port import family_of
from adapters.fit import describe_base, describe_codec
from adapters.low_rank import LowRank
from adapters.metadata import MadeInfo, SourceInfo, Woodshed, license_of
from adapters.safe_files import PICKLE_NAMES, check_header
from configs.errors import UserError
from data_prep.base_files import resolve_base
from data_prep.fingerprint import fingerprint

if TYPE_CHECKING:
    from data_prep.base_files import BaseFiles

Kind = Literal["peft", "transformers", "audiocraft", "kohya"]
RECIPE = (
    "Where you trust it, turn it into safetensors once, in Python: "
    "import torch; from safetensors.torch import save_file; "
    'save_file(torch.load("state_dict.bin", weights_only=True)["best_state"], "state_dict.safetensors")'
)


@dataclass(frozen=True)
class Cut:
    """How much of a tuned model becomes an adapter: see `adapters.extract`."""

    rank: int | None = None
    energy: float | None = None
    leave_out: bool = False


def kind_of(source: Path) -> Kind:
    """What this is.

    Raises:
        UserError: nothing that can be converted, or a pickle.
    """
    if source.is_dir():
        marks: tuple[tuple[str, Kind], ...] = (
            (WEIGHTS, "peft"),
            (CONFIG, "peft"),
            (STATE, "audiocraft"),
            ("config.json", "transformers"),
        )
        for name, kind in marks:
            if (source / name).is_file():
                return kind
        pickles = sorted(path for path in source.iterdir() if path.suffix in (*PICKLE_NAMES, ".th"))
        if pickles:
            raise _pickle(pickles[0])
    if source.suffix in (*PICKLE_NAMES, ".th"):
        raise _pickle(source)
    if source.is_file():
        names = check_header(source)[0].keys()
        if any(name.startswith(PREFIX) for name in names):
            return "kohya"
        if "emb.0.weight" in names:
            return "audiocraft"
    raise UserError(
        f"{source} is nothing that can be converted." if source.exists() else f"{source} does not exist.",
        fix="Give an adapter folder, a transformers folder, a file in kohya's layout, or audiocraft's "
        "state dict as safetensors.",
    )


def read_adapter(source: Path, kind: Kind, files: "BaseFiles | None", cut: Cut, *, force: bool = False) -> Adapter:
    """An adapter out of any of them. `files`, the base, is needed for all but an adapter that describes itself.

    Raises:
        UserError: damaged, of another base, or a base is needed and not there.
    """
    if kind == "peft":
        adapter = load(source, force=force)
        return adapter if adapter.woodshed is not None or files is None else _described(adapter, files)
    if kind == "kohya":
        updates, base_id = from_kohya(source)
        adapter = Adapter(updates, base_id=base_id[:500], folder=source)
        return adapter if files is None else _described(adapter, files)
    if files is None:
        raise UserError("A tuned model is compared with its base.", where=str(source), fix="Add --base.")
    with model_folder(source, kind, files) as tuned:
        extracted = extract(files, tuned, rank=cut.rank, energy=cut.energy, leave_out=cut.leave_out)
        told = _extracted(source, tuned, files, extracted, cut)
    return Adapter(extracted.updates, base_id=told.base.id, revision=files.revision, woodshed=told, folder=source)


@contextmanager
def model_folder(source: Path, kind: Kind, files: "BaseFiles") -> Iterator["BaseFiles"]:
    """A transformers folder of a tuned model: the source itself, or made of audiocraft's state dict for a while."""
    if kind == "transformers":
        yield resolve_base(str(source))
        return
    with tempfile.TemporaryDirectory(prefix="woodshed-") as beside:
        made = Path(beside) / "model"
        from_audiocraft(state_of(source), files, made)
        yield resolve_base(str(made))


def state_of(source: Path) -> Path:
    """The state dict itself."""
    return source / STATE if source.is_dir() else source


def _described(adapter: Adapter, files: "BaseFiles") -> Adapter:
    made = MadeInfo(method="convert", sources=[source_of(adapter, 1.0)])
    told = _told(_name(adapter.folder), files, adapter.updates, made)
    return replace(adapter, woodshed=told, base_id=told.base.id, revision=files.revision)


def _extracted(source: Path, tuned: "BaseFiles", files: "BaseFiles", found: Extracted, cut: Cut) -> Woodshed:
    stored = family_of(tuned).stored(tuned)
    changed = {name: stored[name] for name in (f"{module}.weight" for module in found.updates)}
    origin = SourceInfo(name=_name(source), fingerprint=fingerprint(changed))
    settings = {"rank": cut.rank, "energy": cut.energy}
    made = MadeInfo(method="extract", settings=settings, sources=[origin], error=found.error)
    return _told(_name(source), files, found.updates, made)


def _told(name: str, files: "BaseFiles", updates: Mapping[str, LowRank], made: MadeInfo) -> Woodshed:
    base, codec = describe_base(files, updates), describe_codec(files)
    return Woodshed(name=name, base=base, codec=codec, made=made, license=license_of(files.id))


def _name(path: Path | None) -> str:
    return (path.resolve().stem if path.is_file() else path.resolve().name)[:200] if path else "adapter"


def _pickle(path: Path) -> UserError:
    return UserError(
        f"{path.name} is a pickle: reading it could run somebody's code, so it is not opened.",
        where=str(path),
        fix=RECIPE,
    )
