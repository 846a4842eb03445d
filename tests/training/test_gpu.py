"""On a GPU: the same bits for the same seed, and a CPU's results but for rounding. The other tests are of a CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from fitting import fitted
from masked_models import STUDY as MASKED
from masked_models import TEXTS, folder_of, small

import beft
from beft.bank.attention import drop_weights_of, keyed_attention
from beft.bank.dropout import ForwardState, kernels
from beft.bank.unpadded import Tokens
from beft.data import sources as data
from beft.data.datasets import text_dataset
from beft.debias.patches import patch_of
from beft.models import loading as models
from beft.study import METHODS, Run, Study
from beft.training import device as device_module
from beft.training import graphs
from beft.training.language_modelling import MaskedTokens

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")
STUDY = Study(models.TINY, "microworld_sentiment", 50, epochs=3, batch_size=16, max_length=32)
EVERYTHING = [*METHODS, "b_v:lora", "b_q:dora", "b_k:vera", "full", "mask", "lora", "adapter", "prompt"]


def trained(method: str, device: str, dtype: str = "float32", **more):
    """(epochs, trained numbers) of one run, or of three runs of a method that shares a bank."""
    seeds = (0,) if beft.study.parse_method(method).trains_weights else (0, 1, 2)
    values: list[torch.Tensor] = []
    results = fitted(
        models.load(models.TINY, labels=2),
        data.load("microworld_sentiment"),
        replace(STUDY, dtype=dtype),
        [Run(method, seed, 3e-3) for seed in seeds],
        at_end=lambda bank, _: values.extend(slot.values.detach().cpu().clone() for slot in bank.slots),
        device=device,
        **more,
    )
    return [result.epochs for result in results], values


def dropped(state, shape, dtype, device):
    """What dropout makes of numbers of this shape, and of their gradient."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device, dtype).requires_grad_()
    out = state.dropout(x, 41, 0.1)
    out.backward(torch.ones_like(out))
    return out.detach().cpu(), x.grad.cpu()


@gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(5, 7), (3, 9, 768), (2, 12, 33, 33)])
def test_the_kernel_of_dropout_has_the_masks_and_the_bits_of_a_cpu(shape, dtype):
    pytest.importorskip("triton")
    results = []
    for device in ("cpu", "cuda"):
        state = ForwardState(1)
        state.keys, state.depth = torch.arange(shape[0], dtype=torch.int32, device=device) * 77777777, 3
        results.append(dropped(state, shape, dtype, device))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_tokens_have_the_masks_of_their_rows(dtype):
    pytest.importorskip("triton")
    mask = torch.arange(9) < torch.tensor([7, 3, 9, 1])[:, None]
    results = []
    for device in ("cpu", "cuda"):
        state = ForwardState(1)
        state.keys = torch.arange(4, dtype=torch.int32, device=device) * 77777777
        state.tokens = Tokens.of(mask.long().to(device))
        results.append(dropped(state, (1, 20, 48), dtype, device))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize(("longest", "width"), [(12, 32), (70, 64), (300, 64)])
def test_the_kernel_of_attention_says_what_attention_says(dtype, p, longest, width):
    pytest.importorskip("triton")
    lengths = [longest, 3, longest // 2, 1]
    mask = (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()
    additive = torch.zeros(mask.shape).masked_fill(mask == 0, -1e30)[:, None, None]
    results = []
    for device in ("cpu", "cuda"):
        state = ForwardState(1)
        state.keys = torch.arange(4, dtype=torch.int32, device=device) * 77777777
        state.tokens = Tokens.of(mask.to(device))
        generator = torch.Generator().manual_seed(0)
        given = [torch.randn(1, sum(lengths), 3 * width, generator=generator).to(device, dtype) for _ in range(4)]
        q, k, v = (x.requires_grad_() for x in given[:3])
        heads = [x.unflatten(-1, (3, width)).transpose(1, 2) for x in (q, k, v)]
        attention = torch.nn.Module()
        attention.is_causal, attention.dropout = False, torch.nn.Dropout(p)
        drop_weights_of(attention, state, 7)
        out, _ = keyed_attention(attention, *heads, additive.to(device, dtype))
        out.flatten(2).backward(given[3])
        results.append([x.detach().float().cpu() for x in (out, q.grad, k.grad, v.grad)])
    close = {"atol": 1e-4, "rtol": 1e-3} if dtype == torch.float32 else {"atol": 0.1, "rtol": 0.05}
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, **close)


@gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("shape", [(1, 20, 48), (4, 768), (4, 9, 768)])
def test_the_kernel_of_a_layers_end_says_what_its_parts_say(dtype, p, shape):
    pytest.importorskip("triton")
    mask = torch.arange(9) < torch.tensor([7, 3, 9, 1])[:, None]
    state = ForwardState(1)
    state.keys = torch.arange(4, dtype=torch.int32, device="cuda") * 77777777
    state.tokens = Tokens.of(mask.long().cuda()) if shape[0] == 1 else None
    norm = torch.nn.LayerNorm(shape[-1], device="cuda")
    norm.weight.data, norm.bias.data = torch.randn(2, shape[-1], device="cuda")
    norm.requires_grad_(False)
    x = torch.randn(shape, device="cuda").to(dtype).requires_grad_()
    residual, weight = torch.randn(shape, device="cuda").requires_grad_(), torch.randn(shape, device="cuda")
    results = []
    for fused in (False, True):
        x.grad = residual.grad = None
        if fused:
            keys, frozen = state.keys if p else None, (norm.weight, norm.bias, norm.eps)
            out = kernels().norm.KernelNorm.apply(x, residual, *frozen, keys, state.salt(7), p, state.tokens)
        else:
            out = norm(state.dropout(x, 7, p) + residual)
        (out * weight).sum().backward()
        results.append((out.detach(), x.grad.float(), residual.grad))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4 if dtype == torch.float32 else 2e-2, rtol=1e-2)


@gpu
@pytest.mark.parametrize("methods", [["b_v", "b_q", "all_biases", "head"], ["b_v"], ["full"]])
def test_steps_that_are_played_back_are_those_that_are_computed(methods, monkeypatch):
    def results():
        values: list[torch.Tensor] = []
        epochs = fitted(
            models.load(models.TINY, labels=2),
            data.load("microworld_sentiment"),
            replace(STUDY, epochs=4),
            [Run(method, seed, 3e-3) for seed, method in enumerate(methods)],
            at_end=lambda bank, _: values.extend(slot.values.detach().cpu().clone() for slot in bank.slots),
            device="cuda",
        )
        return [result.epochs for result in epochs], values

    recorded: list[graphs.Shape] = []
    own = graphs.Passes._capture
    monkeypatch.setattr(
        graphs.Passes, "_capture", lambda self, shape, given: (recorded.append(shape), own(self, shape, given))
    )
    played, values = results()
    assert recorded, "some shape comes again"
    monkeypatch.setattr(graphs, "MOST_GRAPHS", 0)
    count = len(recorded)
    computed, others = results()
    assert len(recorded) == count
    assert played == computed and all(torch.equal(a, b) for a, b in zip(values, others, strict=True))


@gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", EVERYTHING)
def test_the_same_seed_twice_is_the_same_bit_for_bit(method, dtype):
    (epochs, values), (again, others) = trained(method, "cuda", dtype), trained(method, "cuda", dtype)
    assert epochs == again
    assert all(torch.equal(a, b) for a, b in zip(values, others, strict=True))


@gpu
@pytest.mark.parametrize("method", EVERYTHING)
def test_a_gpu_says_what_a_cpu_says(method):
    (here, values), (there, others) = trained(method, "cpu"), trained(method, "cuda")
    for a, b in zip(here, there, strict=True):
        assert [e["train_loss"] for e in a] == pytest.approx([e["train_loss"] for e in b], abs=1e-4)
    assert all(torch.allclose(a, b, atol=2e-3) for a, b in zip(values, others, strict=True))


@gpu
@pytest.mark.parametrize("method", ["b_v", "all_biases", "full"])
def test_an_interrupted_bank_goes_on_to_the_same_bits(method, tmp_path):
    def stop(bank, epoch):
        if epoch == 2:
            raise KeyboardInterrupt

    whole, values = trained(method, "cuda")
    with pytest.raises(KeyboardInterrupt):
        trained(method, "cuda", checkpoint=tmp_path / "bank", at_epoch=stop)
    again, others = trained(method, "cuda", checkpoint=tmp_path / "bank")
    assert whole == again and all(torch.equal(a, b) for a, b in zip(values, others, strict=True))


@gpu
@pytest.mark.parametrize("method", ["b_q", "b_v", "all_biases", "lora", "adapter", "prompt", "sparse", "full"])
def test_a_patch_is_trained_and_put_into_a_model_there(method, tmp_path):
    folder = folder_of(small(dropout=0.0), tmp_path / "small")
    loaded, more, kept = models.load_masked(str(folder)), {}, []
    if method == "sparse":
        more["entries"] = {"bert.encoder.layer.0.attention.self.query.weight": torch.tensor([3, 40, 41])}
    fitted(
        loaded,
        text_dataset("texts", TEXTS, TEXTS[:3], "by hand"),
        replace(MASKED, epochs=1),
        [Run("mask" if method == "sparse" else method, 0, 0.05)],
        objective=MaskedTokens,
        at_end=lambda bank, _: kept.append(patch_of(bank, 0, loaded.sha256, method)),
        device="cuda",
        **more,
    )
    study = replace(STUDY, regime=16, epochs=1, validate="last")
    rows = data.load("microworld_sentiment")
    (result,) = fitted(
        models.load(str(folder), labels=2), rows, study, [Run("full", 0, 0.01)], frozen=kept[0], device="cuda"
    )
    assert result.outcome == "ok"


@gpu
@pytest.mark.parametrize("method", ["b_q", "b_v", "lora", "prefix"])
def test_prompts_are_trained_and_scored_there_as_on_a_cpu(method):
    study = Study("tiny-llama", "microworld_sentiment", 16, epochs=1, batch_size=8, max_length=512, prompted=True)
    found = []
    for place in ("cpu", "cuda"):
        loaded = models.load_causal("tiny-llama")
        rows = data.load_prompts("microworld_sentiment", evaluated=24)
        (result,) = fitted(loaded, rows, study, [Run(method, 0, 1e-3)], device=place)
        found.append(result.epochs[-1])
    assert found[0]["train_loss"] == pytest.approx(found[1]["train_loss"], abs=1e-3)
    assert found[0]["validation"] == pytest.approx(found[1]["validation"], abs=0.05)


@pytest.mark.parametrize(("wanted", "message"), [("gpu", "set it to cpu or cuda"), ("cuda", "torch finds no GPU")])
def test_a_device_that_is_not_there_is_refused(monkeypatch, wanted, message):
    monkeypatch.setenv("BEFT_DEVICE", wanted)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(beft.BeftError, match=message):
        device_module.default_device()


def test_the_device_of_the_environment_is_taken_before_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("BEFT_DEVICE", "cpu")
    assert device_module.default_device() == "cpu"
    monkeypatch.delenv("BEFT_DEVICE")
    assert device_module.default_device() == "cuda"
