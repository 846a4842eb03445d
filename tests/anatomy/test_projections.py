"""Anatomy: exact names, verified by moving each site and watching what moves."""

import pytest
import torch
import transformers
from torch import nn

from beft.anatomy.architectures import SHARED
from beft.anatomy.projections import KeyBias, anatomy_summary, bias_modules, classifier, describe, key_bias_is_null
from beft.anatomy.sites import TERMS, Site, width_of
from beft.errors import BeftError
from beft.theory import null_key_bias
from beft.theory.expressiveness import capture, perturb

ENCODERS = [
    *("BERT", "RoBERTa", "XLM-RoBERTa", "CamemBERT", "DistilBERT", "ELECTRA", "MPNet", "ALBERT", "ViT"),
    *("DeBERTa-v2 (c2p)", "DeBERTa-v2 (c2p, p2c)", "ModernBERT with biases"),
]
DECODERS = [name for name in null_key_bias.ARCHITECTURES if name not in ENCODERS]
# family -> heads of key and value, where they are fewer than the query's
GROUPED = {name: 2 for name in DECODERS if name.startswith(("LLaMA", "Mistral", "Qwen", "Gemma", "gpt-oss"))}
GROUPED |= {"Phi": 2, "Phi-3": 2, "StableLM": 2, "Falcon (grouped)": 2}
GROUPED |= {"Falcon (multi-query)": 1, "GPT-BigCode": 1}

# family -> (prefix of the backbone, q, k, v of a layer, pooler and head of the classification model)
NAMES = {
    "BERT": ("bert.encoder.layer", "attention.self.query", "bert.pooler.dense", ("classifier",)),
    "RoBERTa": (
        "roberta.encoder.layer",
        "attention.self.query",
        None,
        ("classifier.dense", "classifier.out_proj"),
    ),
    "XLM-RoBERTa": (
        "roberta.encoder.layer",
        "attention.self.query",
        None,
        ("classifier.dense", "classifier.out_proj"),
    ),
    "ModernBERT with biases": ("model.layers", "attn.Wqkv", None, ("classifier",)),
    "ALBERT": (
        "albert.encoder.albert_layer_groups",
        "albert_layers.0.attention.query",
        "albert.pooler",
        ("classifier",),
    ),
    "ELECTRA": (
        "electra.encoder.layer",
        "attention.self.query",
        None,
        ("classifier.dense", "classifier.out_proj"),
    ),
    "MPNet": ("mpnet.encoder.layer", "attention.attn.q", None, ("classifier.dense", "classifier.out_proj")),
    "DistilBERT": ("distilbert.transformer.layer", "attention.q_lin", None, ("pre_classifier", "classifier")),
    "DeBERTa-v2 (c2p)": (
        "deberta.encoder.layer",
        "attention.self.query_proj",
        "pooler.dense",
        ("classifier",),
    ),
    "ViT": ("vit.layers", "attention.q_proj", None, ("classifier",)),
}


def with_head(name: str) -> nn.Module:
    architecture = null_key_bias.ARCHITECTURES[name]
    config = getattr(transformers, architecture.config)(**architecture.settings)
    kind = "Image" if name == "ViT" else "Sequence"
    torch.manual_seed(0)
    return getattr(transformers, f"AutoModelFor{kind}Classification").from_config(config).double().eval()


@pytest.mark.parametrize("name", [name for name in ENCODERS if name != "ALBERT"])
@pytest.mark.parametrize("build", [null_key_bias.build, with_head], ids=["bare", "with head"])
def test_moving_one_site_moves_its_slice_of_that_projection_and_no_other(name, build):
    model = build(name)
    batch = null_key_bias.inputs(model)
    anatomy = describe(model)
    assert len(anatomy.sites) == 3 * anatomy.layers == 3 * null_key_bias.LAYERS
    before = capture(model, batch)
    for site in anatomy.sites:
        module = model.get_submodule(site.module)
        shift = torch.arange(1.0, site.size + 1, dtype=torch.float64)
        with torch.no_grad():
            module.bias += site.part.put(shift, len(module.bias))
        after = capture(model, batch)
        with torch.no_grad():
            module.bias -= site.part.put(shift, len(module.bias))
        for term in TERMS:
            for layer in range(site.layer):  # earlier layers do not see it at all
                assert torch.equal(after[term][layer], before[term][layer])
            moved = after[term][site.layer] - before[term][site.layer]
            expected = shift.view(anatomy.heads, 1, -1) if term == site.term else torch.zeros(1, dtype=shift.dtype)
            torch.testing.assert_close(moved, expected.expand_as(moved), atol=1e-9, rtol=0)


def attentions(model: nn.Module, batch: dict, site: Site) -> list[torch.Tensor]:
    """The weights (B, H, T, T) of every layer of the attention that the site belongs to."""
    output = model(**batch, output_attentions=True)
    name = {"self": "attentions", "cross": "cross_attentions"}.get(site.attention, f"{site.attention}_attentions")
    return list(getattr(output, name))


@pytest.mark.parametrize("name", DECODERS)
def test_a_site_is_that_term_of_those_heads_whatever_the_layout(name):
    """Moved at one token: a query changes the weights of its row alone, a key those of others too, a value none."""
    model = null_key_bias.build(name)
    model.set_attn_implementation("eager")
    batch = null_key_bias.inputs(model, batch=1)
    anatomy, token, head = describe(model), 4, 1
    size, group = anatomy.head_size, anatomy.heads // anatomy.kv_heads
    numbers = {"self": 0, "encoder": 0, "decoder": null_key_bias.LAYERS, "cross": 2 * null_key_bias.LAYERS}
    for site in anatomy.sites:
        j = head % (site.size // size)
        shift = torch.zeros(site.size, dtype=torch.float64)
        shift[j * size : (j + 1) * size] = torch.linspace(0.5, 2.0, size)
        whole = site.part.put(shift, width_of(model.get_submodule(site.module)))

        def move(module, args, output, whole=whole):
            changed = output.reshape(1, -1, output.shape[-1]).clone()
            changed[:, token] += whole
            return changed.view_as(output)

        with torch.no_grad():
            before, out = attentions(model, batch, site), model(**batch).last_hidden_state
            handle = model.get_submodule(site.module).register_forward_hook(move)
            after, moved_out = attentions(model, batch, site), model(**batch).last_hidden_state
            handle.remove()
        layer = site.layer - numbers[site.attention]
        assert all(torch.equal(x, y) for x, y in zip(before[:layer], after[:layer], strict=True))
        moved = (after[layer] - before[layer]).abs()[0] > 1e-7  # (H, T, T); BLOOM's softmax is float32
        rows, heads = moved.any(-1).any(0).nonzero().flatten(), moved.any(-1).any(-1).nonzero().flatten()
        assert (out - moved_out).abs().max() > 1e-6
        if site.term == "v":
            assert not moved.any()
        elif site.term == "q":
            assert rows.tolist() == [token] and heads.tolist() == [j]
        else:
            assert len(rows) > 1 and heads.tolist() == list(range(j * group, (j + 1) * group))
            assert moved[..., token].any()


@pytest.mark.parametrize("name", DECODERS)
def test_heads_of_decoders_and_which_have_biases(name):
    anatomy = describe(null_key_bias.build(name))
    kv_heads = GROUPED.get(name, null_key_bias.HEADS)
    assert (anatomy.heads, anatomy.kv_heads, anatomy.head_size) == (
        null_key_bias.HEADS,
        kv_heads,
        null_key_bias.SIZE,
    )
    assert [anatomy.of(t)[0].size for t in TERMS] == [
        n * null_key_bias.SIZE for n in (null_key_bias.HEADS, kv_heads, kv_heads)
    ]
    bare = {"GPT-J", "LLaMA", "Mistral", "Qwen3", "Gemma 2", "Gemma 3", "Phi-3", "T5"}
    assert all(site.has_bias is (name not in bare) for site in anatomy.sites)
    assert anatomy.causal is (name not in ("T5", "BART"))
    assert anatomy.layers == null_key_bias.LAYERS * (3 if name in ("T5", "BART") else 1)


def test_an_encoder_without_its_decoder_has_the_encoders_sites_alone():
    model = transformers.T5EncoderModel(transformers.T5Config(**null_key_bias.ARCHITECTURES["T5"].settings))
    assert {site.attention for site in describe(model).sites} == {"encoder"}


def test_rotary_positions_name_the_rotated_dimensions():
    assert (
        describe(null_key_bias.build("GPT-J")).positions
        == f"rotary ({null_key_bias.SIZE // 2} of {null_key_bias.SIZE} dimensions)"
    )
    assert describe(null_key_bias.build("GPT-NeoX")).positions.startswith("rotary (4 of 16")
    assert describe(null_key_bias.build("LLaMA")).positions == "rotary"


@pytest.mark.parametrize("name", NAMES)
def test_names_of_projections_pooler_and_head(name):
    stack, query, pooler, modules = NAMES[name]
    model = with_head(name)
    assert [site.module for site in describe(model).of("q")] == [
        f"{stack}.{i}.{query}" for i in range(null_key_bias.LAYERS)
    ]
    assert classifier(model).pooler == pooler
    assert classifier(model).modules == modules
    assert all(isinstance(model.get_submodule(part), nn.Linear) for part in modules)


@pytest.mark.parametrize("name", ENCODERS)
def test_heads_and_sizes(name):
    anatomy = describe(null_key_bias.build(name))
    assert (anatomy.heads, anatomy.kv_heads, anatomy.head_size) == (
        null_key_bias.HEADS,
        null_key_bias.HEADS,
        null_key_bias.SIZE,
    )
    assert all(site.has_bias and site.size == null_key_bias.WIDTH for site in anatomy.sites)


@pytest.mark.parametrize("name", NAMES)
def test_bias_modules_are_all_those_of_the_backbone(name):
    model = with_head(name)
    mine = bias_modules(model)
    head = classifier(model)
    outside = {*head.modules, head.pooler, None}
    expected = {
        module_name
        for parameter, _ in model.named_parameters()
        if parameter.endswith(".bias") and (module_name := parameter.removesuffix(".bias")) not in outside
    }
    assert set(mine) == expected
    assert all(model.get_submodule(full) is module for full, module in mine.items())
    assert {site.module for site in describe(model).sites} <= set(mine)


def test_the_pooler_of_a_bare_bert_is_no_bias_module():
    model = null_key_bias.build("BERT")
    assert classifier(model).pooler == "pooler.dense"
    assert classifier(model).modules == ()
    assert "pooler.dense" not in bias_modules(model)


def test_positions_in_words():
    assert describe(null_key_bias.build("BERT")).positions == "learned absolute"
    assert describe(null_key_bias.build("MPNet")).positions == "learned absolute and additive relative"
    assert describe(null_key_bias.build("ModernBERT with biases")).positions == "rotary"
    deberta = describe(null_key_bias.build("DeBERTa-v2 (c2p, p2c)"))
    assert deberta.positions.startswith("disentangled relative")
    assert deberta.extras == ("content-to-position", "position-to-content")


def test_albert_uses_each_of_its_layers_at_several_depths():
    """A bias that is moved moves by as much the output of its projection at every depth, of that layer alone."""
    model = null_key_bias.build("ALBERT")
    anatomy = describe(model)
    assert anatomy.layers == 2 and model.config.num_hidden_layers == 4 and anatomy.extras == (SHARED,)
    own = transformers.AlbertConfig(**null_key_bias.ARCHITECTURES["ALBERT"].settings | {"num_hidden_groups": 4})
    assert describe(transformers.AlbertModel(own)).extras == ()
    site, calls = anatomy.of("v")[1], []
    model.get_submodule(site.module).register_forward_hook(lambda module, args, output: calls.append(output))
    with torch.no_grad():
        model(**null_key_bias.inputs(model))
        model.get_submodule(site.module).bias += 1
        model(**null_key_bias.inputs(model))
    assert len(calls) == 4
    torch.testing.assert_close(calls[2] - calls[0], torch.ones_like(calls[0]), rtol=0, atol=1e-12)


def test_albert_with_several_layers_in_a_group_is_refused():
    settings = null_key_bias.ARCHITECTURES["ALBERT"].settings | {"inner_group_num": 2}
    with pytest.raises(BeftError, match="groups of 2 layers and beft knows groups of one: name its projections by"):
        describe(transformers.AlbertModel(transformers.AlbertConfig(**settings)))


def test_a_projection_without_a_bias_is_described_so():
    config = transformers.ViTConfig(**null_key_bias.ARCHITECTURES["ViT"].settings, qkv_bias=False)
    model = transformers.ViTModel(config)
    assert not any(site.has_bias for site in describe(model).sites)
    assert not any("q_proj" in name for name in bias_modules(model))


def test_an_encoder_inside_another_module():
    holder = nn.ModuleDict({"encoder": with_head("BERT"), "extra": nn.Linear(2, 2)})
    assert describe(holder).of("v")[1].module == "encoder.bert.encoder.layer.1.attention.self.value"
    assert classifier(holder).modules == ("encoder.classifier",)


def test_two_encoders_in_one_module_are_refused():
    with pytest.raises(BeftError, match=r"2 encoders \(a, b\)"):
        describe(nn.ModuleDict({"a": null_key_bias.build("BERT"), "b": null_key_bias.build("ELECTRA")}))


# --- null key biases, against measurement ---------------------------------------------------------------------------


def moves(model: nn.Module) -> bool:
    """Does N(0, 1) on every key bias change the output in float64? Between the two cases lie ten orders."""
    change = perturb(model, null_key_bias.inputs(model), describe(model).of("k")).relative
    assert change < 1e-12 or change > 1e-3
    return change > 1e-3


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("build", [null_key_bias.build, with_head], ids=["bare", "with head"])
def test_a_null_key_bias_is_one_by_measurement(name, build):
    model = build(name)
    assert key_bias_is_null(model).null is not moves(model)


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("terms", [[], ["c2p"], ["p2c"], ["c2p", "p2c"]], ids="+".join)
def test_the_key_bias_of_deberta_depends_on_position_to_content_alone(relative, shared, terms):
    settings = null_key_bias.ARCHITECTURES["DeBERTa-v2 (c2p)"].settings | {
        "pos_att_type": terms,
        "relative_attention": relative,
        "share_att_key": shared,
    }
    torch.manual_seed(0)
    model = transformers.DebertaV2Model(transformers.DebertaV2Config(**settings)).double().eval()
    key_bias = key_bias_is_null(model)
    assert key_bias.null is (not relative or "p2c" not in terms)
    if relative and not terms:
        pytest.skip("transformers cannot run relative attention without any kind of it")
    assert key_bias.null is not moves(model)


def test_an_old_bert_config_with_relative_keys_is_judged_as_it_runs():
    config = transformers.BertConfig(
        **null_key_bias.ARCHITECTURES["BERT"].settings, position_embedding_type="relative_key_query"
    )
    torch.manual_seed(0)
    model = transformers.BertModel(config).double().eval()
    assert key_bias_is_null(model).null is not moves(model)


def test_the_reason_is_given():
    assert "softmax removes" in key_bias_is_null(null_key_bias.build("BERT")).reason
    assert "position-to-content" in key_bias_is_null(null_key_bias.build("DeBERTa-v2 (c2p, p2c)")).reason


def test_an_unknown_architecture_is_never_called_null():
    key_bias = key_bias_is_null(stranger())
    assert isinstance(key_bias, KeyBias)
    assert not key_bias.null
    assert "not known" in key_bias.reason


@pytest.mark.parametrize("row", null_key_bias.exceptions(draws=1), ids=lambda row: row["model"])
def test_every_architecture_behaves_as_theory_says(row):
    # BLOOM's softmax runs in float32 whatever the model's precision
    assert (row["change"] < (1e-6 if row["model"] == "BLOOM" else 1e-12)) is row["null"]


def stranger() -> nn.Module:
    """A model of a family that beft does not know."""
    return transformers.CTRLModel(
        transformers.CTRLConfig(
            vocab_size=null_key_bias.VOCABULARY, n_embd=null_key_bias.WIDTH, n_layer=2, n_head=4, dff=32
        )
    )


# --- unknown architectures ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", [describe, bias_modules, classifier])
def test_unknown_architecture_lists_linear_modules_and_the_remedy(ask):
    with pytest.raises(BeftError) as caught:
        ask(stranger())
    message = str(caught.value)
    assert "CTRLModel" in message
    assert "h.{layer}.multi_head_attention.Wk (2 of 64)" in message
    assert "describe(model, sites=" in message


def test_custom_sites_work_on_a_fused_projection():
    model = null_key_bias.build("GPT-2")
    width = null_key_bias.WIDTH
    sites = {term: f"h.{{layer}}.attn.c_attn[{i * width}:{(i + 1) * width}]" for i, term in enumerate(TERMS)}
    anatomy = describe(model, sites=sites)
    assert (anatomy.layers, anatomy.heads, anatomy.kv_heads, anatomy.head_size) == (
        2,
        null_key_bias.HEADS,
        null_key_bias.HEADS,
        null_key_bias.SIZE,
    )
    batch = null_key_bias.inputs(model)
    assert perturb(model, batch, anatomy.of("k")).relative < 1e-12
    assert perturb(model, batch, anatomy.of("q")).relative > 1e-3
    assert perturb(model, batch, anatomy.of("v")).relative > 1e-3


def test_custom_sites_may_be_interleaved():
    model, size = null_key_bias.build("GPT-NeoX"), null_key_bias.SIZE
    name = "layers.{{layer}}.attention.query_key_value[{}:{}/4]"
    sites = {t: name.format(i * size, (i + 1) * size) for i, t in enumerate(TERMS)}
    assert describe(model, sites=sites).sites == describe(model).sites


def test_custom_sites_count_grouped_heads():
    model = null_key_bias.build("Qwen2")
    anatomy = describe(model, sites={t: f"layers.{{layer}}.self_attn.{t}_proj" for t in TERMS})
    assert (anatomy.heads, anatomy.kv_heads, anatomy.head_size) == (
        null_key_bias.HEADS,
        2,
        null_key_bias.SIZE,
    )
    assert [anatomy.of(term)[0].size for term in TERMS] == [
        null_key_bias.WIDTH,
        null_key_bias.WIDTH // 2,
        null_key_bias.WIDTH // 2,
    ]


def test_custom_sites_of_an_ordinary_module():
    model = nn.Sequential(*(nn.ModuleDict({"value": nn.Linear(6, 8)}) for _ in range(3)))
    with pytest.raises(BeftError, match="heads=") as _:
        describe(model, sites={"v": "{layer}.value"})
    anatomy = describe(model, sites={"v": "{layer}.value"}, heads=2)
    assert [site.module for site in anatomy.of("v")] == ["0.value", "1.value", "2.value"]
    with pytest.raises(BeftError, match="unknown bias term 'q'"):
        anatomy.of("q")


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        ({"q": "h.{layer}.attn.q_proj"}, "not in this model"),
        ({"w": "h.{layer}.attn.c_attn"}, "unknown bias term 'w'"),
        ({"q": "h.{layer}.attn.c_attn[0:999]"}, "does not fit"),
        ({"q": "h.{layer}.attn.c_attn[5:5]"}, "does not fit"),
        ({"q": "h.{layer}.attn.c_attn[a]"}, "not a dotted name"),
        ({"q": "h.{layer}.attn"}, "is a GPT2Attention"),
        ({"q": "h.{layer}.attn.c_attn", "v": "h.0.attn.c_attn"}, "different numbers of layers"),
        ({"q": "h.{layer}.attn.c_attn[0:99/2]"}, r"slice \[0:99\] in each of 2 blocks does not fit"),
        ({"q": "h.{layer}.attn.c_attn[0:2/5]"}, "in each of 5 blocks does not fit"),
        ({}, "no sites given"),
    ],
)
def test_wrong_custom_sites_are_refused(sites, message):
    with pytest.raises(BeftError, match=message):
        describe(null_key_bias.build("GPT-2"), sites=sites)


def test_biases_are_counted_on_models_without_numbers():
    models = {name: null_key_bias.build(name, auto="AutoModelForCausalLM").to("meta") for name in ("OPT", "LLaMA")}
    opt, llama = (anatomy_summary(name, model) for name, model in models.items())
    assert opt["has_bias"] == {"q": True, "k": True, "v": True} and opt["key_bias_null"]
    assert llama["has_bias"] == {"q": False, "k": False, "v": False} and not llama["key_bias_null"]
    assert llama["model"] == "LLaMA" and llama["family"] == "llama" and llama["reason"]
    assert llama["value_size"] == llama["kv_heads"] * llama["head_size"] < llama["query_size"]
    layers = describe(models["LLaMA"]).layers
    assert llama["value_total"] == layers * llama["value_size"] < llama["parameters"]
