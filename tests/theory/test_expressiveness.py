"""Reach, attention and perturbation of whole models, against the models' own attention and autograd."""

import numpy as np
import pytest
import torch
import transformers

from beft.anatomy.projections import describe
from beft.errors import BeftError
from beft.theory import null_key_bias
from beft.theory.attention import attend
from beft.theory.expressiveness import (
    capture,
    moved_heads,
    perturb,
    perturbation_table,
    reach,
    sensitivity,
    tokenize,
    visible,
)

NULL = [
    *("BERT", "RoBERTa", "DistilBERT", "ELECTRA", "ViT"),
    *("GPT-2", "OPT", "GPT-BigCode", "GPT-BigCode (all heads)"),
]


def small(name="BERT"):
    model = null_key_bias.build(name)
    return model, null_key_bias.inputs(model)


@pytest.mark.parametrize("name", NULL)
def test_attention_from_captured_projections_is_the_models_own(name):
    model, batch = small(name)
    model.set_attn_implementation("eager")
    theirs = model(**batch, output_attentions=True).attentions
    mine = capture(model, batch)
    mask = batch.get("attention_mask", torch.ones(4, 1)).bool()
    for layer, weights in enumerate(theirs):
        keys = visible(mask, describe(model).causal)
        _, recomputed = attend(*(mine[term][layer] for term in "qkv"), keys)
        recomputed, weights = (x.transpose(1, 2)[mask] if len(mask[0]) > 1 else x for x in (recomputed, weights))
        single = name.startswith(("ViT", "OPT", "GPT-BigCode"))  # their eager softmax runs in float32
        torch.testing.assert_close(recomputed, weights, atol=1e-6 if single else 1e-12, rtol=0)


def reach_by_autograd(name):
    """Mean over real tokens and heads of |do/db_q|_F^2 / d, layer by layer, with no formula of ours but attention's."""
    model, batch = small(name)
    captured = capture(model, batch)
    mask = batch.get("attention_mask", torch.ones(4, captured["q"][0].shape[2])).bool()
    keys = visible(mask, describe(model).causal)
    result = []
    for q, k, v in zip(captured["q"], captured["k"], captured["v"], strict=True):
        total, count = 0.0, 0
        for b, h in np.ndindex(q.shape[:2]):
            shared = h % k.shape[1]  # one key and value for all heads, or its own

            def output(shift, q=q[b, h], k=k[b, shared], v=v[b, shared], keys=keys[b, 0]):
                return attend(q + shift, k, v, keys)[0]

            jacobian = torch.autograd.functional.jacobian(output, torch.zeros(q.shape[-1], dtype=q.dtype))
            total += float(jacobian[mask[b]].square().sum()) / q.shape[-1]
            count += int(mask[b].sum())
        result.append((total / count) ** 0.5)
    return result


@pytest.mark.parametrize("name", ["BERT", "ViT", "OPT", "GPT-BigCode"])
def test_reach_of_the_query_bias_is_its_jacobian_by_autograd(name):
    np.testing.assert_allclose(reach(*small(name))["q"], reach_by_autograd(name), rtol=1e-9)


def test_reach_of_value_and_key_bias_are_one_and_zero():
    scores = reach(*small())
    np.testing.assert_array_equal(scores["v"], np.ones(null_key_bias.LAYERS))
    np.testing.assert_array_equal(scores["k"], np.zeros(null_key_bias.LAYERS))
    assert (0 < scores["q"]).all()


def test_reach_ignores_padding():
    model, batch = small()
    ids = batch["input_ids"][:, :6]
    unpadded = reach(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    padded_ids = torch.cat([ids, torch.zeros(4, 5, dtype=torch.long)], dim=1)
    mask = torch.cat([torch.ones_like(ids), torch.zeros(4, 5, dtype=torch.long)], dim=1)
    padded = reach(model, {"input_ids": padded_ids, "attention_mask": mask})
    np.testing.assert_allclose(padded["q"], unpadded["q"], rtol=1e-10)


def test_the_mask_of_a_decoder_is_where_its_tokens_are():
    mask = visible(torch.ones(2, 3, dtype=torch.bool, device="meta"), causal=True)
    assert mask.device.type == "meta" and mask.shape == (2, 1, 3, 3)


def test_reach_over_several_batches_weighs_every_token_alike():
    model, batch = small()
    batches = [{key: x[rows] for key, x in batch.items()} for rows in ([0], [1, 2, 3])]
    whole, split = sensitivity(model, batch), sensitivity(model, batches)
    assert whole.tokens == split.tokens == int(batch["attention_mask"].sum())
    for field in ("rms", "frobenius", "spectral", "entropy", "uniform"):
        np.testing.assert_allclose(getattr(split, field), getattr(whole, field), rtol=1e-10)


def test_dropout_does_not_enter_and_training_mode_is_restored():
    model, batch = small()
    before = reach(model, batch)["q"]
    model.train()
    np.testing.assert_array_equal(reach(model, batch)["q"], before)
    assert model.training


def test_norms_and_entropies_are_in_their_ranges():
    measured = sensitivity(*small())
    size = null_key_bias.SIZE
    assert (measured.frobenius <= measured.rms).all()  # mean against root mean square
    assert (measured.spectral <= measured.frobenius * size**0.5 + 1e-12).all()
    assert (measured.frobenius <= measured.spectral + 1e-12).all()  # |J|_F <= sqrt(d) |J|_2
    assert (0 < measured.entropy).all() and (measured.entropy < measured.uniform).all()


def test_reach_of_a_model_whose_key_bias_is_not_null_is_refused():
    with pytest.raises(BeftError, match="not defined yet for deberta-v2.*position-to-content"):
        reach(*small("DeBERTa-v2 (c2p, p2c)"))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("DeBERTa-v2 (c2p)", "adds terms of the position"),
        ("MPNet", "adds terms of the position"),
        ("ALBERT", "uses a layer at several depths"),
        ("ModernBERT with biases", "RoPE"),
        ("BLOOM", "adds terms of the position"),
        ("BART", "another one than the formula's"),
        ("LLaMA", "RoPE"),
    ],
)
def test_reach_with_another_attention_is_refused_too(name, reason):
    with pytest.raises(BeftError, match=f"not defined yet for .*{reason}"):
        reach(*small(name))


def test_reach_without_a_real_token_is_refused():
    model, batch = small()
    with pytest.raises(BeftError, match="no real token"):
        reach(model, batch | {"attention_mask": torch.zeros_like(batch["input_ids"])})
    with pytest.raises(BeftError, match="no real token"):
        reach(model, [])


def test_perturbation_is_what_changing_the_bias_itself_gives():
    model, batch = small()
    sites = describe(model).of("v")
    measured = perturb(model, batch, sites, seed=3)
    before = model(**batch).last_hidden_state[batch["attention_mask"].bool()]
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for site in sites:
            model.get_submodule(site.module).bias += torch.randn(site.size, generator=generator)
        after = model(**batch).last_hidden_state[batch["attention_mask"].bool()]
    assert measured.relative == pytest.approx(((after - before).norm() / before.norm()).item(), rel=1e-6)
    assert measured.largest == pytest.approx((after - before).abs().max().item(), rel=1e-6)


def test_perturbation_leaves_the_model_as_it_was():
    model, batch = small()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    perturb(model, batch, describe(model).sites)
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_perturbing_a_projection_without_a_bias_works():
    config = transformers.ViTConfig(**null_key_bias.ARCHITECTURES["ViT"].settings, qkv_bias=False)
    model = transformers.ViTModel(config).double().eval()
    batch = null_key_bias.inputs(model)
    assert perturb(model, batch, describe(model).of("k")).relative < 1e-12
    assert perturb(model, batch, describe(model).of("v")).relative > 1e-3


def test_perturbation_table_orders_the_terms_in_every_precision():
    model, batch = small()
    rows = perturbation_table(model, batch)
    change = {(row["term"], row["precision"]): row["relative"] for row in rows}
    assert len(change) == 9
    assert change["b_k", "float64"] < 1e-12
    assert change["b_k", "float64"] < change["b_k", "float32"] < change["b_k", "bfloat16"]
    for precision in ("float64", "float32", "bfloat16"):
        assert change["b_k", precision] < 0.2 * change["b_q", precision]
        assert change["b_k", precision] < 0.2 * change["b_v", precision]
    assert next(model.parameters()).dtype == torch.float64


def test_an_unknown_precision_is_refused_with_the_nearest():
    with pytest.raises(BeftError, match="did you mean float64"):
        perturbation_table(*small(), dtypes=["float46"])


def test_models_are_the_same_for_the_same_seed_and_leave_the_random_state():
    state = torch.get_rng_state()
    first, second, other = (
        null_key_bias.build("BERT", 1),
        null_key_bias.build("BERT", 1),
        null_key_bias.build("BERT", 2),
    )
    assert torch.equal(torch.get_rng_state(), state)
    weight = "embeddings.word_embeddings.weight"
    assert torch.equal(first.get_parameter(weight), second.get_parameter(weight))
    assert not torch.equal(first.get_parameter(weight), other.get_parameter(weight))


def test_an_unknown_architecture_is_refused_with_the_nearest():
    with pytest.raises(BeftError, match="did you mean RoBERTa"):
        null_key_bias.build("RoBERT")


def test_texts_become_batches_in_order_without_padding_to_the_longest_of_all(tiny):
    texts = [("film film",), ("film",), ("film film film film",)]  # and two special tokens each
    batches = tokenize(tiny.tokenizer, texts, batch_size=2, max_length=7)
    assert [tuple(batch["input_ids"].shape) for batch in batches] == [(2, 4), (1, 6)]
    assert batches[0]["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]


def test_directions_are_the_squared_ratio_of_the_norms():
    measured = sensitivity(*small())
    np.testing.assert_allclose(measured.directions, measured.frobenius**2 * null_key_bias.SIZE / measured.spectral**2)
    assert (measured.directions >= 1).all() and (measured.directions <= null_key_bias.SIZE).all()


@pytest.mark.parametrize("name", ["LLaMA", "OPT", "GPT-2", "GPT-J", "Falcon (grouped)"])
def test_one_entry_of_a_value_bias_moves_the_query_heads_of_its_group_by_as_much(name):
    model = null_key_bias.build(name, auto="AutoModelForCausalLM").requires_grad_(False)
    batch = {n: x for n, x in null_key_bias.inputs(model).items() if n in ("input_ids", "attention_mask")}
    batch["attention_mask"] = torch.ones_like(batch["attention_mask"])
    moved = moved_heads(model, batch, entry=0)
    anatomy = describe(model)
    group = anatomy.heads // anatomy.kv_heads
    expected = torch.tensor([1.0 if head < group else 0.0 for head in range(anatomy.heads)], dtype=moved.dtype)
    torch.testing.assert_close(moved, expected, atol=1e-6, rtol=0)
