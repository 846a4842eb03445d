"""Caches of models with sliding windows: what is forgotten, and where padding goes."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache
from windowed_models import WINDOW, WINDOWED, windowed

from beft.bank.caches import close_gaps, shortest_window, whole
from beft.theory import null_key_bias as tiny_models


@pytest.mark.parametrize("which", WINDOWED)
def test_a_window_in_force_is_found_in_the_config(which):
    assert shortest_window(windowed(which).config) == WINDOW


@pytest.mark.parametrize("name", ["LLaMA", "GPT-2", "Qwen2", "BLOOM"])
def test_a_model_whose_tokens_see_all_before_them_has_no_window(name):
    assert shortest_window(tiny_models.build(name, auto="AutoModelForCausalLM").config) is None


def test_a_whole_cache_remembers_from_here_on_and_what_is_forgotten_is_zero():
    model = windowed("Gemma 3, some", sliding_window=4)
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(input_ids=torch.arange(3, 13).view(2, 5), past_key_values=cache)
    kept = [layer.keys for layer in cache.layers]
    assert [keys.shape[2] for keys in kept] == [3, 5]
    found = whole(cache)
    assert torch.equal(found.layers[0].keys[:, :, 2:], kept[0]) and not found.layers[0].keys[:, :, :2].any()
    assert torch.equal(found.layers[1].keys, kept[1])
    with torch.no_grad():
        model(input_ids=torch.arange(3, 13).view(2, 5), past_key_values=found)
    assert [layer.keys.shape[2] for layer in found.layers] == [10, 10]
    assert whole(found) is found


def test_padding_at_the_end_of_a_row_moves_to_its_beginning():
    states = torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5)
    cache = DynamicCache([(states, -states)])
    mask = close_gaps(cache, torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]), torch.tensor([0, 2]))
    assert mask.tolist() == [[1, 1, 1, 1], [0, 0, 1, 1]]
    keys, values = cache.layers[0].keys, cache.layers[0].values
    assert torch.equal(keys[0], states[0]) and torch.equal(keys[1, :, 2:], states[1, :, :2])
    assert torch.equal(values, -keys)
