"""Numbers of adapters come and go in tensors that grow by doubling, and a row is computed with those of its adapter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from beft.serving import stacks
from beft.serving.stacks import AddedBias, OwnLayer, Stack

CPU = torch.device("cpu")


@given(st.lists(st.tuples(st.integers(1, 12), st.booleans()), max_size=60))
def test_a_stack_holds_what_was_put_and_not_dropped(events):
    stack, held = Stack((3,), torch.float32, CPU), {}
    for count, (number, puts) in enumerate(events):
        if puts and number not in held:
            held[number] = torch.full((3,), float(count + 1))
            stack.put(number, held[number])
        elif not puts:
            stack.drop(number)
            held.pop(number, None)
        everyone = np.arange(13)
        rows = stack.rows(everyone)
        assert len(stack) == len(held) and [n for n in everyone if rows[n]] == sorted(held)
        assert len(set(rows[rows > 0])) == len(held)  # no two share a row
        taken = stack.take(rows)
        for number in everyone:
            assert torch.equal(taken[number], held.get(int(number), torch.zeros(3)))


@given(st.integers(1, 300))
def test_a_stack_copies_a_number_at_most_twice_on_the_average_and_is_at_most_twice_as_large(count):
    stack, copied, before = Stack((1,), torch.float32, CPU), 0, 2
    for number in range(1, count + 1):
        stack.put(number, torch.ones(1))
        if len(stack.values) != before:
            copied, before = copied + before, len(stack.values)
    assert copied <= 2 * count and count < len(stack.values) <= 2 * (count + 1)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=7))
def test_a_vector_is_added_to_the_rows_of_its_adapter_and_to_all_their_tokens(numbers):
    place, layer = AddedBias(5, torch.float32, CPU), nn.Linear(4, 5)
    vectors = {n: torch.randn(5, generator=torch.Generator().manual_seed(n)) for n in (1, 2, 3)}
    for n, vector in vectors.items():
        place.stack.put(n, vector)
    numbers = np.array(numbers)
    x = torch.randn(len(numbers), 6, 4, generator=torch.Generator().manual_seed(0))
    layer.register_forward_hook(place.hook)
    with torch.inference_mode():
        bare = layer(x)
        place.prepare(numbers)
        own, per_token = layer(x), layer(x.flatten(0, 1))
        place.clear()
        assert torch.equal(layer(x), bare)
    for row, n in enumerate(numbers.tolist()):
        torch.testing.assert_close(own[row], bare[row] + vectors.get(n, torch.zeros(5)))
    torch.testing.assert_close(per_token.unflatten(0, (len(numbers), 6)), own)


@pytest.mark.parametrize("wide", [1, 2**16])
@pytest.mark.parametrize("shape", [(4,), (6, 4)])
@given(numbers=st.lists(st.integers(0, 5), min_size=1, max_size=7))
def test_layers_of_several_shapes_are_each_rows_own(wide, shape, numbers):
    sizes, layers = {1: 2, 2: 3, 3: 3, 4: 7}, {}
    place, base = OwnLayer(torch.float32, CPU), nn.Linear(4, 2)
    for n, size in sizes.items():
        layers[n] = nn.Linear(4, size, bias=n != 4)
        place.put(n, layers[n].weight.detach(), None if n == 4 else layers[n].bias.detach())
    numbers = np.array(numbers)
    x = torch.randn(len(numbers), *shape, generator=torch.Generator().manual_seed(0))
    hooked = nn.Linear(4, 2)
    hooked.load_state_dict(base.state_dict())
    hooked.register_forward_hook(place.hook)
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr(stacks, "WIDE", wide)
        place.prepare(numbers)
        out = hooked(x)
        per_token = hooked(x.flatten(0, 1)) if x.dim() == 3 else None
        place.clear()
        assert torch.equal(hooked(x), base(x))
        for row, n in enumerate(numbers.tolist()):
            expected = layers.get(n, base)(x[row])
            torch.testing.assert_close(out[row][..., : expected.shape[-1]], expected)
            assert not out[row][..., expected.shape[-1] :].any()
    if per_token is not None:
        torch.testing.assert_close(per_token.unflatten(0, (len(numbers), 6)), out)


def test_a_shape_that_nobody_has_any_more_takes_no_memory():
    place = OwnLayer(torch.float32, CPU)
    place.put(1, torch.ones(2, 4), torch.ones(2))
    before = place.nbytes
    place.put(2, torch.ones(900, 4), None)
    assert place.nbytes > 10 * before
    place.drop(2)
    assert place.nbytes == before and len(place) == 1
