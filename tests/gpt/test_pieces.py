"""The loss in pieces is the loss; products by another library are the products; blocks can be computed twice."""

import pytest
import torch
from gpt_parts import tiny_gpt

from tats.gpt import linear, pieces
from tats.gpt.config import GPTConfig
from tats.gpt.linear import Linear
from tats.gpt.model import GPT
from tats.gpt.objective import accuracy, learn, loss, predict, window
from tats.gpt.pieces import loss_in_pieces
from tats.gpt.train import GPTTraining
from tats.gpt.train_config import GPTTrainConfig


@pytest.fixture
def small_pieces(monkeypatch):
    """Pieces of 2 rows, stripes of 5 ids: many of both in a tiny model, the last ones shorter."""
    monkeypatch.setattr(pieces, "PIECE", 1)
    monkeypatch.setattr(pieces, "FEWEST_ROWS", 2)
    monkeypatch.setattr(pieces, "STRIPE", 5)


@pytest.mark.parametrize("n_unmasked, counted", [(0, slice(None)), (4, slice(4, 16))])
def test_loss_accuracies_and_every_gradient_are_those_of_all_logits_at_once(small_pieces, n_unmasked, counted):
    gpt = tiny_gpt(n_unmasked=n_unmasked)
    cond, codes = torch.tensor([[0], [1], [2]]), torch.randint(37, (3, 5, 2, 2))
    logits, target = predict(gpt, cond, codes)
    logits, target = logits[:, counted], target[:, counted]
    whole, accuracies = loss(logits, target), accuracy(logits, target)
    wanted = torch.autograd.grad(3 * whole, list(gpt.parameters()))
    found, others = learn(gpt, window(gpt, cond, codes), counted)
    (3 * found).backward()
    torch.testing.assert_close(found, whole, rtol=1e-12, atol=0)
    torch.testing.assert_close(others, [each.float() for each in accuracies], rtol=1e-6, atol=0)
    for parameter, gradient in zip(gpt.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-12)


def test_pieces_know_which_gradients_are_wanted_and_give_them_once(small_pieces):
    x, weight, target = torch.randn(7, 4, requires_grad=True), torch.randn(11, 4), torch.randint(11, (7,))
    value, (acc1, acc5) = loss_in_pieces(x, weight, target)
    assert acc1.shape == acc5.shape == (1,) and acc1 <= acc5
    value.backward(retain_graph=True)
    (wanted,) = torch.autograd.grad(torch.nn.functional.cross_entropy(x @ weight.T, target), x)
    torch.testing.assert_close(x.grad, wanted)
    with pytest.raises(RuntimeError, match="only once"):
        value.backward()
    with torch.no_grad():
        assert not loss_in_pieces(x, weight, target)[0].requires_grad
    with pytest.raises(ValueError, match="at least one"):
        loss_in_pieces(x[:0], weight, target[:0])


def test_logits_are_never_all_there(small_pieces, monkeypatch):
    shapes = []
    whole = pieces.times
    monkeypatch.setattr(pieces, "times", lambda a, b: shapes.append((len(a), len(b))) or whole(a, b))
    x, weight = torch.randn(9, 4, requires_grad=True), torch.randn(11, 4, requires_grad=True)
    value, _ = loss_in_pieces(x, weight, torch.zeros(9, dtype=torch.long))
    value.backward()
    assert max(rows for rows, columns in shapes if columns == 11) == 2
    assert value.grad_fn.kept is None


def test_in_bf16_the_pieces_are_as_good_as_all_logits_at_once():
    torch.manual_seed(0)
    x, weight, target = torch.randn(64, 32), torch.randn(100, 32) * 0.1, torch.randint(100, (64,))
    found = []
    for kind in ("exact", "at once", "pieces"):
        inputs = [each.clone().requires_grad_() for each in (x, weight)]
        with torch.autocast("cpu", torch.bfloat16, enabled=kind != "exact"):
            if kind == "pieces":
                value, _ = loss_in_pieces(*inputs, target)
            else:
                value = loss(torch.nn.functional.linear(*inputs), target)
        assert value.dtype == torch.float32
        value.backward()
        assert all(each.grad.dtype == torch.float32 for each in inputs)
        found.append([value.detach(), *(each.grad for each in inputs)])
    for exact, eager, ours in zip(*found):
        assert (ours - exact).norm() <= 1.5 * (eager - exact).norm() + 1e-6


def batch_of(gpt, n=3):
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(gpt.config.n_codes, (n, *gpt.config.latent_shape), generator=generator)
    return {"video": codes, "label": torch.arange(n) % 3, "index": torch.arange(n)}


@pytest.mark.parametrize("n_unmasked", [0, 4])
def test_activation_checkpointing_changes_no_bit(n_unmasked):
    found = []
    for checkpointing in (False, True):
        gpt = tiny_gpt(n_unmasked=n_unmasked).float().train()
        gpt.blocks[1].mlp.append(torch.nn.Dropout(0.3))
        flags = GPTTrainConfig(activation_checkpointing=checkpointing, own_codes=0.5)
        torch.manual_seed(5)
        calls = []
        gpt.blocks[0].register_forward_pre_hook(lambda *_, calls=calls: calls.append(torch.is_grad_enabled()))
        value = GPTTraining(gpt, flags, 1e-3).step(batch_of(gpt))[0]
        value.backward()
        assert calls.count(True) == 1 + checkpointing
        found.append([value.detach(), *(parameter.grad for parameter in gpt.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers_by_another_library_have_the_same_values_and_gradients(monkeypatch, bias):
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has one library only")
    monkeypatch.setattr(linear, "LEAST", 1)
    monkeypatch.setattr(linear, "onednn_wins", lambda: True)
    torch.manual_seed(0)
    layer, x, above = Linear(80, 72, bias), torch.randn(2, 40, 80), torch.randn(2, 40, 72)
    found = []
    for dtype in (torch.float64, torch.float32):
        inputs = x.to(dtype).requires_grad_()
        y = layer.to(dtype)(inputs)
        assert ("Product" in str(y.grad_fn)) == (dtype == torch.float32)
        layer.zero_grad()
        y.backward(above.to(dtype))
        assert all(p.grad.is_contiguous() for p in layer.parameters())
        found.append([y.detach(), inputs.grad, *(p.grad.clone() for p in layer.parameters())])
    for exact, ours in zip(*found, strict=True):
        assert (ours - exact).norm() <= 1e-6 * exact.norm()
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16


def test_only_large_float32_products_on_cpus_go_elsewhere(monkeypatch):
    monkeypatch.setattr(linear, "onednn_wins", lambda: True)
    x, weight = torch.randn(64, 1024), torch.randn(64, 1024)
    assert linear.fits(x, weight) and not linear.fits(x[:63], weight) and not linear.fits(x[:, :512], weight[:, :512])
    assert not linear.fits(x.double(), weight) and not linear.fits(x.bfloat16(), weight.bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        assert not linear.fits(x, weight)


def test_compiled_blocks_train_alike_and_leave_no_trace_in_names(monkeypatch):
    compile_block = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compile_block(self, backend="eager"))
    config = GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=0, unconditional=True).fitted((2, 2, 2), 10)
    found = []
    for compiled in (False, True):
        torch.manual_seed(0)
        module = GPTTraining(GPT(config), GPTTrainConfig(compile=compiled), 1e-3)
        assert all((block._compiled_call_impl is not None) == compiled for block in module.gpt.blocks)
        module.step(batch_of(module.gpt))[0].backward()
        found.append((module.state_dict(), {name: p.grad for name, p in module.named_parameters()}))
    for plain, other in zip(*found, strict=True):
        assert list(plain) == list(other)
        for name, value in plain.items():
            torch.testing.assert_close(other[name], value, msg=name)
