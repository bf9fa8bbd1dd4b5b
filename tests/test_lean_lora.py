"""The lean LoRA forward against peft's own: same outputs and gradients, less kept for the backward pass."""

from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from torch import Tensor, nn
from torch.testing import assert_close

from finetune import lean_lora

WIDTH, INNER, RANK = 64, 96, 8


class Block(nn.Module):
    """Three projections of the same input, one of them with a bias, then a second layer: what a decoder layer does."""

    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(WIDTH, INNER, bias=False)
        self.k = nn.Linear(WIDTH, INNER, bias=True)
        self.v = nn.Linear(WIDTH, INNER, bias=False)
        self.out = nn.Linear(INNER, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.q(x)) * torch.sigmoid(self.k(x)) + self.v(x))


def adapted(dtype: torch.dtype = torch.float32, change: Callable[[nn.Module], None] | None = None, **lora) -> PeftModel:
    """A block with fp32 adapters whose B is not zero, on a base of the given type."""
    torch.manual_seed(0)
    block = Block().to(dtype)
    if change is not None:
        change(block)
    config = LoraConfig(r=RANK, lora_alpha=12, target_modules=["q", "k", "v", "out"], **lora)
    model = get_peft_model(block, config)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            values = torch.randn(parameter.shape, generator=generator) * 0.1
            parameter.data = values if "magnitude" not in name else parameter.data.float() * 1.1
    model.train()
    assert isinstance(model, PeftModel)
    return model


def step(model: nn.Module, x: Tensor, autocast: bool = False) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
    """Output, gradient of the input, gradients of the parameters."""
    model.zero_grad()
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = model(x)
    y.float().square().mean().backward()
    return y.detach(), x.grad, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def kept_bytes(model: nn.Module, x: Tensor) -> int:
    """Bytes of the distinct storages that the forward pass keeps, parameters left out."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    storages: dict[int, int] = {}
    alive = []

    def note(tensor: Tensor) -> Tensor:
        alive.append(tensor)
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        y = model(x.clone().requires_grad_())
    del y
    return sum(storages.values())


def randn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2)).to(dtype)


def test_fp32_equals_peft_with_all_gradients():
    model = adapted()
    x = randn(3, 17, WIDTH)
    want, want_x, want_grads = step(model, x)
    assert lean_lora.install(model) == 4
    got, got_x, got_grads = step(model, x)
    assert_close(got, want, rtol=1e-5, atol=1e-6)
    assert_close(got_x, want_x, rtol=1e-5, atol=1e-8)
    assert set(got_grads) == set(want_grads) and len(got_grads) == 8
    for name, grad in want_grads.items():
        assert_close(got_grads[name], grad, rtol=1e-5, atol=1e-8, msg=lambda text, name=name: f"{name}: {text}")


def test_bf16_is_near_fp32_and_the_gradients_stay_fp32():
    reference = adapted()
    with torch.no_grad():
        for parameter in reference.parameters():
            if not parameter.requires_grad:
                parameter.copy_(parameter.bfloat16())
    model = adapted(torch.bfloat16)
    x = randn(3, 17, WIDTH, dtype=torch.bfloat16)
    want, _, want_grads = step(reference, x.float())
    lean_lora.install(model)
    got, _, got_grads = step(model, x)
    assert got.dtype == torch.bfloat16
    assert_close(got.float(), want, rtol=2e-2, atol=2e-2)
    for name, grad in want_grads.items():
        assert got_grads[name].dtype == torch.float32
        error = (got_grads[name] - grad).norm() / grad.norm()
        assert error < 2e-2, (name, float(error))


def test_keeps_less_than_peft():
    model = adapted(torch.bfloat16)
    x = randn(4, 200, WIDTH, dtype=torch.bfloat16)
    before = kept_bytes(model, x)
    lean_lora.install(model)
    after = kept_bytes(model, x)
    assert after < 0.6 * before, (after, before)


def test_one_input_is_kept_once_for_three_projections():
    model = adapted(torch.bfloat16)
    lean_lora.install(model)
    x = randn(4, 200, WIDTH, dtype=torch.bfloat16)
    rows = 4 * 200
    activations = rows * (WIDTH + 4 * INNER) * 2  # x, tanh, sigmoid, their sum, and the input of tanh's product
    low = 4 * rows * RANK * 2 + 4 * (WIDTH + INNER) * RANK * 2
    assert kept_bytes(model, x) <= activations + low


@pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed but the targeted layer")
@pytest.mark.parametrize("kind", ["dora", "dropout", "bias"])
def test_what_it_does_not_cover_is_left_to_peft(kind: str):
    model = adapted(use_dora=kind == "dora", lora_dropout=0.5 if kind == "dropout" else 0.0, lora_bias=kind == "bias")
    x = randn(2, 9, WIDTH)
    torch.manual_seed(3)
    want, want_x, want_grads = step(model, x)
    lean_lora.install(model)
    torch.manual_seed(3)
    got, got_x, got_grads = step(model, x)
    assert_close((got, got_x, got_grads), (want, want_x, want_grads), rtol=0, atol=0)


def test_dropout_in_eval_is_covered():
    model = adapted(lora_dropout=0.5).eval()
    x = randn(2, 9, WIDTH)
    want = model(x)
    lean_lora.install(model)
    assert_close(model(x), want, rtol=1e-5, atol=1e-6)


def test_autocast_is_left_to_peft():
    model = adapted()
    x = randn(2, 9, WIDTH)
    want = step(model, x, autocast=True)
    lean_lora.install(model)
    assert_close(step(model, x, autocast=True), want, rtol=0, atol=0)


def test_disabled_merged_and_removed():
    model = adapted()
    x = randn(2, 9, WIDTH)
    want = model(x)
    with model.disable_adapter():
        bare = model(x)
    lean_lora.install(model)
    with model.disable_adapter():
        assert_close(model(x), bare, rtol=0, atol=0)
    model.merge_adapter()
    assert_close(model(x), want, rtol=1e-5, atol=1e-5)
    model.unmerge_adapter()
    assert lean_lora.remove(model) == 4 and lean_lora.remove(model) == 0
    assert_close(model(x), want, rtol=1e-5, atol=1e-5)


def test_the_adapter_file_is_unchanged():
    model = adapted()
    before = {name: tensor.clone() for name, tensor in get_peft_model_state_dict(model).items()}
    lean_lora.install(model)
    assert_close(get_peft_model_state_dict(model), before, rtol=0, atol=0)


def quantise_4bit(block: nn.Module) -> None:
    import bitsandbytes as bnb

    for name in ("q", "k", "v", "out"):
        old = getattr(block, name)
        new = bnb.nn.modules.Linear4bit(
            old.in_features, old.out_features, bias=old.bias is not None, compute_dtype=torch.float32, quant_type="nf4"
        )
        new.load_state_dict(old.state_dict())
        setattr(block, name, new.to("cpu"))
    vars(block)["is_loaded_in_4bit"] = True


def quantise_8bit(block: nn.Module) -> None:
    import bitsandbytes as bnb

    for name in ("q", "k", "v", "out"):
        old = getattr(block, name)
        new = bnb.nn.modules.Linear8bitLt(
            old.in_features, old.out_features, bias=False, has_fp16_weights=False, threshold=6.0
        )
        new.load_state_dict({"weight": old.weight})
        setattr(block, name, new.to("cpu"))
    vars(block)["is_loaded_in_8bit"] = True


@pytest.mark.parametrize("quantise", [quantise_4bit, quantise_8bit])
def test_quantised_bases(quantise: Callable[[nn.Module], None]):
    model = adapted(change=quantise)
    x = randn(2, 9, WIDTH)
    want, want_x, want_grads = step(model, x)
    assert type(model.base_model.model.q).__module__ == "peft.tuners.lora.bnb"  # pyright: ignore
    assert lean_lora.install(model) == 4
    got, got_x, got_grads = step(model, x)
    assert_close(got, want, rtol=1e-5, atol=1e-6)
    assert_close(got_x, want_x, rtol=1e-5, atol=1e-8)
    for name, grad in want_grads.items():
        assert_close(got_grads[name], grad, rtol=1e-4, atol=1e-7)


def test_8bit_keeps_no_input_behind_the_back_of_checkpointing():
    from torch.utils.checkpoint import checkpoint

    from finetune.memory.live import LiveBytes

    model = adapted(change=quantise_8bit)
    x = randn(4, 200, WIDTH).requires_grad_()
    kept = []
    for lean in (False, True):
        if lean:
            lean_lora.install(model)
        live = LiveBytes()
        live.hold(x, *model.parameters())
        before = live.live
        with live:
            y = checkpoint(model, x, use_reentrant=False)
            kept.append(live.live - before)
        assert isinstance(y, Tensor)
        y.sum().backward()
        del y
    output = 4 * 200 * WIDTH * 4
    assert kept[1] < output + 50_000 < kept[0] - output, kept
