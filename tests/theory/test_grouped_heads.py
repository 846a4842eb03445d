"""What one number of a value bias moves in models with grouped heads."""

import pytest
import torch

from beft.anatomy.projections import describe
from beft.theory import null_key_bias as tiny_models
from beft.theory.expressiveness import moved_heads


@pytest.mark.parametrize("name", ["LLaMA", "OPT", "GPT-2", "GPT-J", "Falcon (grouped)"])
def test_one_number_of_a_value_bias_moves_the_query_heads_of_its_group_by_as_much(name):
    model = tiny_models.build(name, auto="AutoModelForCausalLM").requires_grad_(False)
    batch = {n: x for n, x in tiny_models.inputs(model).items() if n in ("input_ids", "attention_mask")}
    batch["attention_mask"] = torch.ones_like(batch["attention_mask"])
    moved = moved_heads(model, batch, entry=0)
    anatomy = describe(model)
    group = anatomy.heads // anatomy.kv_heads
    expected = torch.tensor([1.0 if head < group else 0.0 for head in range(anatomy.heads)], dtype=moved.dtype)
    torch.testing.assert_close(moved, expected, atol=1e-6, rtol=0)
