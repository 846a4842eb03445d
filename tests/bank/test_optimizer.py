"""The optimizer of a bank against torch's own, a run at a time."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from beft.bank.optimizer import StackedAdam
from beft.bank.slots import Slot

SHAPES = [(5,), (3, 2), (4,), (1,)]


def make_slots(R: int, trained: torch.Tensor) -> list[Slot]:
    draw = torch.Generator().manual_seed(0)
    return [
        Slot(f"m{i}.bias", "bias", torch.randn(R, *shape, generator=draw), trained[:, i])
        for i, shape in enumerate(SHAPES)
    ]


def give_gradients(slots: list[Slot], step: int) -> None:
    draw = torch.Generator().manual_seed(step)
    for slot in slots:
        slot.values.grad = torch.randn(slot.values.shape, generator=draw) * 3.0


@given(bucket=st.integers(1, 60), steps=st.integers(1, 4))
def test_every_run_moves_as_with_adamw_alone_in_buckets_of_any_size(bucket: int, steps: int) -> None:
    trained = torch.tensor([[True, True, True, True], [True, False, True, False], [False, False, False, True]])
    rates = torch.tensor([0.1, 0.01, 0.001])
    slots = make_slots(3, trained)
    alone = [[nn.Parameter(s.values[run].detach().clone()) for s in slots if s.trained[run]] for run in range(3)]
    plain = [
        torch.optim.AdamW(values, lr=float(rate), eps=1e-6, weight_decay=0.0)
        for values, rate in zip(alone, rates, strict=True)
    ]
    ours = StackedAdam(slots, rates, clip=1.0, bucket=bucket)
    for step in range(steps):
        give_gradients(slots, step)
        for run, optimizer in enumerate(plain):
            for value, slot in zip(alone[run], (s for s in slots if s.trained[run]), strict=True):
                value.grad = slot.values.grad[run].clone()  # type: ignore[index]
            nn.utils.clip_grad_norm_(alone[run], 1.0)
            optimizer.step()
        ours.step()
        assert all(s.values.grad is None for s in slots)
    for run in range(3):
        for value, slot in zip(alone[run], (s for s in slots if s.trained[run]), strict=True):
            torch.testing.assert_close(slot.values[run], value, rtol=1e-5, atol=1e-6)


def test_a_run_that_does_not_train_a_slot_keeps_its_values_whatever_their_gradient() -> None:
    slots = make_slots(2, torch.tensor([[True] * 4, [True, False, True, True]]))
    before = slots[1].values[1].detach().clone()
    give_gradients(slots, 0)
    slots[1].values.grad[1] = float("nan")  # type: ignore[index]
    StackedAdam(slots, torch.tensor([0.1, 0.1])).step()
    assert torch.equal(slots[1].values[1], before)
    assert all(s.values.isfinite().all() for s in slots)


@pytest.mark.parametrize("bucket", [1, 10, 1000])
def test_a_state_restored_goes_on_with_the_same_bits_also_into_other_buckets(bucket: int) -> None:
    trained, rates = torch.ones(2, 4, dtype=torch.bool), torch.tensor([0.1, 0.01])
    slots = make_slots(2, trained)
    optimizer = StackedAdam(slots, rates, clip=1e9, bucket=bucket)
    give_gradients(slots, 0)
    optimizer.step()
    others = make_slots(2, trained)
    again = StackedAdam(others, rates, clip=1e9, bucket=7)
    again.restore({name: value.clone() for name, value in optimizer.state().items()})
    for both in (slots, others):
        give_gradients(both, 1)
    optimizer.step()
    again.step()
    assert all(torch.equal(a.values, b.values) for a, b in zip(slots, others, strict=True))


def test_a_run_of_weights_moves_as_with_adamw_too() -> None:
    slots = make_slots(1, torch.ones(1, 4, dtype=torch.bool))
    for slot in slots:
        slot.group = "weights"
    alone = [nn.Parameter(s.values[0].detach().clone()) for s in slots]
    plain = torch.optim.AdamW(alone, lr=0.02, eps=1e-6, weight_decay=0.0)
    ours = StackedAdam(slots, torch.tensor([0.04]), clip=1.0, bucket=16)
    assert ours.alone and not StackedAdam(make_slots(1, torch.ones(1, 4, dtype=torch.bool)), torch.ones(1)).alone
    for step in range(4):
        give_gradients(slots, step)
        if step == 2:
            slots[1].values.grad = None  # what a step did not reach has a gradient of zero
        for value, slot in zip(alone, slots, strict=True):
            value.grad = torch.zeros_like(value) if slot.values.grad is None else slot.values.grad[0].clone()
        nn.utils.clip_grad_norm_(alone, 1.0)
        plain.step()
        ours.step(0.5)
        for value, slot in zip(alone, slots, strict=True):
            torch.testing.assert_close(slot.values[0], value, rtol=1e-5, atol=1e-6)
            assert slot.values.grad is None
    state = {name: tensor.clone() for name, tensor in ours.state().items()}
    assert int(state["steps"]) == 4 and state["first0"].any()
