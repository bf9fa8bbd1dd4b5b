"""PEFT's own file layout ↔ updates by module: key names, adapter_config.json, its patterns. No files are opened here.

A key is `base_model.model.<module>.<part>`, with the module's name in the whole model.
Module names come from the keys alone, never from a pattern in the configuration: a pattern in a stranger's file is
only ever read as `adapters.peft_patterns` does, so that none can keep the machine busy.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from adapters.foreign_names import PREFIX, in_whole_model, module_and_part
from adapters.low_rank import LowRank, layer_number
from adapters.peft_patterns import ModulePattern
from adapters.printable import short
from configs.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

PARTS = {
    "lora_A.weight": "a",
    "lora_B.weight": "b",
    "lora_embedding_A": "a",
    "lora_embedding_B": "b",
    "lora_magnitude_vector": "magnitude",
    "lora_magnitude_vector.weight": "magnitude",
}
MODULE = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
MAX_RANK = 4096
MAX_ALPHA = 1e6
MAX_PATTERNS = 64
ELSEWHERE = ("text_encoder.", "audio_encoder.")

NO_EFFECT = {
    "auto_mapping", "base_model_name_or_path", "bias", "corda_config", "eva_config", "exclude_modules",
    "inference_mode", "init_lora_weights", "layers_pattern", "layers_to_transform", "loftq_config", "lora_alpha",
    "lora_dropout", "lora_ga_config", "alpha_pattern", "rank_pattern", "megatron_core", "peft_type", "peft_version",
    "qalora_group_size", "r", "revision", "runtime_config", "target_modules", "task_type", "use_dora", "use_rslora",
}  # fmt: skip
"""Fields of peft 0.21's LoraConfig that are read here, or that change nothing once an adapter is trained."""


def to_updates(tensors: "Mapping[str, Tensor]", config: Mapping[str, Any], where: str) -> dict[str, LowRank]:
    """Read the two files' contents as updates by module, checking each against the other.

    Raises:
        UserError: a key that is no part of a LoRA, a missing part, or a rank, shape or kind other than configured.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    embeddings, saved_as = set(), {}
    for key, tensor in tensors.items():
        saved, part = _split(key, where)
        module = in_whole_model(saved)
        saved_as[module] = saved
        if PARTS[part] in parts.setdefault(module, {}):
            raise _unfit(f"{module} has its {part} twice", where)
        parts[module][PARTS[part]] = tensor
        if part.startswith("lora_embedding"):
            embeddings.add(module)
    if not parts:
        raise _unfit("it holds no tensors", where)
    tables = _Tables(config, where)
    updates = {}
    for module in sorted(parts):
        rank, alpha = tables.rank(saved_as[module]), tables.alpha(saved_as[module])
        updates[module] = _update(module, parts[module], (rank, alpha), tables, module in embeddings, where)
    return {module: update for module, update in updates.items() if not _is_idle_elsewhere(module, update)}


def to_tensors(updates: Mapping[str, LowRank]) -> "dict[str, Tensor]":
    """The tensors of adapter_model.safetensors."""
    tensors = {}
    for module, update in updates.items():
        a, b = ("lora_embedding_A", "lora_embedding_B") if update.embedding else ("lora_A.weight", "lora_B.weight")
        tensors[f"{PREFIX}{module}.{a}"] = update.a
        tensors[f"{PREFIX}{module}.{b}"] = update.b
        if update.magnitude is not None:
            tensors[f"{PREFIX}{module}.lora_magnitude_vector"] = update.magnitude
    return tensors


def to_config(
    updates: Mapping[str, LowRank], *, base_id: str, revision: str | None, dropout: float = 0.0
) -> dict[str, Any]:
    """What adapter_config.json says. Where updates differ in rank or alpha, exact per-module patterns say so.

    Raises:
        ValueError: DoRA and plain updates mixed: PEFT has one switch for the whole adapter.
    """
    if len({update.magnitude is None for update in updates.values()}) > 1:
        raise ValueError("PEFT cannot hold DoRA and plain updates in one adapter")
    rslora = all(update.rslora for update in updates.values())
    kept = {name: update if rslora else update.plain() for name, update in updates.items()}
    first = next(iter(kept.values()))
    rank = _commonest([update.rank for update in kept.values()])
    alpha = _commonest([update.alpha for update in kept.values()])
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base_id,
        "revision": revision,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": _whole(alpha),
        "lora_dropout": dropout,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "use_rslora": rslora,
        "use_dora": first.magnitude is not None,
        "target_modules": modules_pattern(updates),
        "modules_to_save": None,
        "rank_pattern": {_exactly(n): u.rank for n, u in kept.items() if u.rank != rank},
        "alpha_pattern": {_exactly(n): _whole(u.alpha) for n, u in kept.items() if u.alpha != alpha},
    }


def modules_pattern(modules: Mapping[str, Any]) -> str:
    """An anchored regular expression that matches exactly these modules; layer numbers are folded together."""
    layers: dict[tuple[str, str], list[int]] = {}
    others = []
    for module in modules:
        number = layer_number(module)
        if number is None:
            others.append(re.escape(module))
        else:
            before, after = module.split(f".layers.{number}.", 1)
            layers.setdefault((before, after), []).append(number)
    leaves: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for (before, after), numbers in layers.items():
        leaves.setdefault((before, tuple(sorted(numbers))), []).append(after)
    branches = [
        rf"{re.escape(before)}\.layers\.({'|'.join(map(str, numbers))})\.({'|'.join(re.escape(a) for a in after)})"
        for (before, numbers), after in leaves.items()
    ]
    return f"^({'|'.join([*branches, *others])})$"


def check_config(config: Mapping[str, Any], where: str, *, force: bool = False) -> None:
    """Refuse what this reader would get wrong: other methods, parts it does not know, unconverted starts.

    `force` lets unknown fields pass, which is unwise: one of them may change what the adapter means.
    """
    kind = config.get("peft_type")
    if kind != "LORA":
        raise _unfit(f"its kind is {short(kind)}, not LORA", where)
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower() not in ("gaussian", "orthogonal", "eva"):
        raise _unfit(
            f"it was saved relative to a base that {short(start)} had changed, not to the base itself",
            where,
            "Ask its author to convert it (peft: save_pretrained(path_initial_model_for_weight_conversion=…)).",
        )
    if config.get("bias", "none") != "none":
        raise _unfit("it trained biases, which no low-rank update describes", where)
    active = sorted(name for name, value in config.items() if name not in NO_EFFECT and value)
    if active and not force:
        raise _unfit(
            f"its settings use {short(', '.join(active))}, which this version does not know",
            where,
            "Update Woodshed, or use --force if you know that this changes nothing.",
        )


def _split(key: str, where: str) -> tuple[str, str]:
    found = module_and_part(key)
    if found is None or not MODULE.fullmatch(found[0]):
        raise _unfit(f"it holds {short(key)}, which is no part of a LoRA", where)
    return found


def _is_idle_elsewhere(module: str, update: LowRank) -> bool:
    """An update of what Woodshed never changes that changes nothing: `all-linear` reaches the text encoder too, where
    B stays zero when only the decoder was trained."""
    return module.startswith(ELSEWHERE) and update.magnitude is None and not bool(update.b.any())


def _update(
    module: str,
    found: "dict[str, Tensor]",
    sizes: tuple[int, float],
    tables: "_Tables",
    embedding: bool,
    where: str,
) -> LowRank:
    missing = {"a", "b"} - found.keys()
    if missing:
        raise _unfit(f"{module} has no {' and no '.join(sorted(missing)).upper()}", where)
    a, b, magnitude = found["a"], found["b"], found.get("magnitude")
    rank, alpha = sizes
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != rank or b.shape[1] != rank or min(*a.shape, *b.shape) < 1:
        shapes = f"A {list(a.shape)} and B {list(b.shape)}"
        raise _unfit(f"{module} has {shapes}, its settings say rank {rank}", where)
    if tables.dora != (magnitude is not None):
        raise _unfit(f"{module} and the settings disagree about DoRA", where)
    if magnitude is not None:
        magnitude = magnitude.reshape(-1)
        if magnitude.shape[0] != b.shape[0]:
            raise _unfit(f"{module} has a magnitude of {magnitude.shape[0]} for {b.shape[0]} outputs", where)
    return LowRank(a, b, alpha, tables.rslora, magnitude, embedding)


class _Tables:
    """Rank and alpha of every module, by PEFT's rule: the pattern that matches a tail of its name, else the default."""

    def __init__(self, config: Mapping[str, Any], where: str) -> None:
        self.where = where
        self.dora, self.rslora = bool(config.get("use_dora")), bool(config.get("use_rslora"))
        self.ranks = self._table(config, "rank_pattern")
        self.alphas = self._table(config, "alpha_pattern")
        self.r, self.lora_alpha = config.get("r", 8), config.get("lora_alpha", 8)  # 8: peft's own defaults

    def rank(self, module: str) -> int:
        value = self._find(self.ranks, module, self.r)
        if type(value) is not int or not 1 <= value <= MAX_RANK:
            raise _unfit(f"{module} has the rank {short(value)}", self.where)
        return value

    def alpha(self, module: str) -> float:
        value = self._find(self.alphas, module, self.lora_alpha)
        if type(value) not in (int, float) or not abs(value) < MAX_ALPHA:
            raise _unfit(f"{module} has the alpha {short(value)}", self.where)
        return float(value)

    def _table(self, config: Mapping[str, Any], field: str) -> tuple[dict[str, Any], dict[ModulePattern, Any]]:
        """Entries that name one module exactly, and the looser ones."""
        table = config.get(field) or {}
        if not isinstance(table, Mapping):
            raise _unfit(f"its {field} is no table", self.where)
        exact, loose = {}, {}
        for pattern, value in table.items():
            whole = pattern.startswith("^") and pattern.endswith("$")
            plain = pattern[1:-1].replace("\\.", ".")
            if whole and MODULE.fullmatch(plain):
                exact[plain] = value
                continue
            try:
                loose[ModulePattern(pattern)] = value
            except ValueError as error:
                why = f"its {field} holds {short(pattern)}, which is more than a module's name"
                raise _unfit(why, self.where) from error
        if len(loose) > MAX_PATTERNS:
            raise _unfit(f"its {field} holds {len(loose)} patterns", self.where)
        return exact, loose

    @staticmethod
    def _find(table: tuple[dict[str, Any], dict[ModulePattern, Any]], module: str, default: Any) -> Any:
        exact, loose = table
        if module in exact:
            return exact[module]
        return next((value for pattern, value in loose.items() if pattern.matches(module)), default)


def _exactly(module: str) -> str:
    return f"^{re.escape(module)}$"


def _commonest(values: list[Any]) -> Any:
    return max(values, key=values.count)


def _whole(alpha: float) -> float | int:
    return int(alpha) if alpha == int(alpha) else alpha


def _unfit(why: str, where: str, fix: str = "") -> UserError:
    return UserError(
        f"This is not an adapter that can be used: {why}.", where=where, fix=fix or "Ask its author for it again."
    )
