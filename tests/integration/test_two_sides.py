"""Prompts, asymmetric heads, switches and triplets through the whole model: train, cache, evaluate, save."""

import pytest
import torch
from torch.utils.data import DataLoader

from simtrain import CacheConfig, CacheType, Runner, SimilarityModel, TrainableModel, evaluate
from simtrain.cache import CachedModel
from simtrain.data import (
    GroupSimilarityDataLoader,
    PairsSimilarityDataLoader,
    SimilarityGroupSample,
    SimilarityPairSample,
    SimilarityTripletSample,
    TripletSimilarityDataLoader,
)
from simtrain.data.sides import DOCUMENT, QUERY, Prompts
from simtrain.encoders import ModuleEncoder, NgramEncoder, SwitchEncoder
from simtrain.errors import ConfigError, DataError
from simtrain.heads import AsymmetricHead, EmptyHead, GatedHead, LinearHead, SkipConnectionHead, SwitchHead
from simtrain.losses import MultipleNegativesRankingLoss, SupConLoss, TripletLoss
from tests.training.models import BagEncoder, pair_samples, words


class Prompted(BagEncoder):
    """A bag of letters that puts a letter before queries and another before documents."""

    def get_side_fn(self):
        return Prompts(query="zzz", document="q")


def triplet_samples(n=12):
    pairs = pair_samples(n)
    other = words(3 * n, seed=5)
    return [SimilarityTripletSample(pair.obj_a, pair.obj_b, other[i : i + 1 + i % 3]) for i, pair in enumerate(pairs)]


def model(head=None, encoders=None, loss=None, cache=None):
    torch.manual_seed(2)
    return TrainableModel(
        encoders=encoders or Prompted(),
        head=head or (lambda size: AsymmetricHead(size, query=SkipConnectionHead(size))),
        loss=loss or MultipleNegativesRankingLoss(),
        cache=cache,
    )


CACHES = [None, CacheConfig(CacheType.CPU)]


def fitted(made, loader):
    torch.manual_seed(4)
    Runner(made, 2, loader, cfg={"training": {"device": "cpu"}}).fit()
    return made


def loader_of(kind):
    torch.manual_seed(7)
    if kind == "pairs":
        return PairsSimilarityDataLoader(pair_samples(), batch_size=8, shuffle=True)
    return TripletSimilarityDataLoader(triplet_samples(), batch_size=4, shuffle=True)


@pytest.mark.parametrize("kind", ["pairs", "triplets"])
def test_sides_train_alike_with_and_without_a_cache(kind):
    plain, cached = (fitted(model(cache=cache), loader_of(kind)) for cache in CACHES)
    assert any(
        not torch.equal(a, b)
        for a, b in zip(plain.model.head.parameters(), model().model.head.parameters(), strict=True)
    )
    for name, value in plain.model.head.state_dict().items():
        torch.testing.assert_close(cached.model.head.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_the_sides_of_a_batch_are_those_of_its_samples():
    made = model().model
    batch = [SimilarityTripletSample("abc", "bcd", ["x", "y"]), SimilarityTripletSample("cde", "def", ["z"])]
    features, targets = made.get_collate()(batch)
    assert features["meta"]["side"].tolist() == [QUERY] * 2 + [DOCUMENT] * 5
    expected = torch.cat(
        [
            made.encode_query(["abc", "cde"], to_numpy=False),
            made.encode_document(["bcd", "def", *"xyz"], to_numpy=False),
        ]
    )
    torch.testing.assert_close(made.eval()(features), expected)
    assert targets["pairs"].tolist() == [[0, 2], [1, 3], [0, 4], [0, 5], [1, 6]]
    assert targets["labels"].tolist() == [1, 1, 0, 0, 0]
    assert targets["groups"].tolist() == [0, 1, 0, 1, 2, 3, 4]


def test_query_and_document_differ_and_the_untouched_side_keeps_its_vectors():
    made = model().model
    texts = words(5)
    queries, documents = made.encode_query(texts, to_numpy=False), made.encode_document(texts, to_numpy=False)
    assert not torch.allclose(queries, documents)
    raw = SimilarityModel(made.encoders["default"], EmptyHead(8)).encode([f"q{text}" for text in texts], to_numpy=False)
    torch.testing.assert_close(documents, raw)
    with pytest.raises(DataError, match="two sides: use encode_query or encode_document"):
        made.encode(texts)
    assert made.has_sides
    assert not SimilarityModel(BagEncoder(), EmptyHead(8)).has_sides


def test_prompts_alone_make_sides_too():
    made = SimilarityModel(Prompted(), EmptyHead(8))
    assert made.has_sides
    unsided, query = made.encode("abc", to_numpy=False), made.encode_query("abc", to_numpy=False)
    torch.testing.assert_close(query, made.encode("zzzabc", to_numpy=False))
    assert not torch.allclose(unsided, query)
    similarities = made.similarity(["abc", "bcd"], ["abc"])
    assert similarities.shape == (2, 1)
    assert made.similarity(["abc"]).item() < 0.9999


def test_a_cache_keeps_the_sides_apart_and_gives_the_same_vectors():
    made = model().model
    cached = CachedModel(made, CacheConfig(CacheType.CPU))
    texts = words(6)
    for name in ("encode_query", "encode_document"):
        plain, stored = (getattr(one, name)(texts, to_numpy=False) for one in (made, cached))
        torch.testing.assert_close(stored, plain)
    assert cached.reports["default"].n_encoded == 6
    cached.encode_query(texts)
    assert cached.reports["default"].n_encoded == 0


@pytest.mark.parametrize("cache", CACHES)
def test_evaluation_encodes_each_side_as_it_is_trained(cache):
    samples = [SimilarityPairSample(text, text) for text in words(20)]
    made = model(head=EmptyHead, cache=cache)
    perfect = evaluate(SimilarityModel(BagEncoder(), EmptyHead(8)), samples, k=(1,)).metrics["recall@1"]
    assert perfect == 1.0
    queries = made.model.encode([f"zzz{s.obj_a}" for s in samples], to_numpy=False, normalize=True)
    documents = made.model.encode([f"q{s.obj_b}" for s in samples], to_numpy=False, normalize=True)
    found = (queries @ documents.T).argmax(1)
    expected = (found == torch.arange(20)).float().mean().item()
    assert evaluate(made.cached, samples, k=(1,)).metrics["recall@1"] == pytest.approx(expected)


def test_saving_keeps_the_sides(tmp_path):
    made = SimilarityModel(NgramEncoder(8), AsymmetricHead(8, query=LinearHead(8, 4), document=LinearHead(8, 4))).eval()
    made.save(tmp_path / "m")
    loaded = SimilarityModel.load(tmp_path / "m")
    for name in ("encode_query", "encode_document"):
        a, b = (getattr(one, name)(["some text", "another"], to_numpy=False) for one in (made, loaded))
        torch.testing.assert_close(a, b)


def test_groups_have_no_sides_and_are_told_so():
    made = model(loss=SupConLoss())
    with pytest.raises(DataError, match="in training, pairs or triplets"):
        made.train_step([SimilarityGroupSample("abc", 0), SimilarityGroupSample("bcd", 0)])


def test_triplets_train_group_losses_and_pairwise_ones():
    batch = triplet_samples(6)
    for loss in (TripletLoss(margin=0.3), SupConLoss(), MultipleNegativesRankingLoss()):
        made = model(loss=loss)
        assert made.train_step(batch)["loss"].requires_grad


def test_explicit_negatives_count_in_the_ranking_loss():
    made = model(head=EmptyHead, loss=MultipleNegativesRankingLoss(scale=5.0))
    hard = [SimilarityTripletSample("abcabc", "abcabd", ["abcabc"]), SimilarityTripletSample("xyz", "xyw", ["xyz"])]
    easy = [SimilarityTripletSample("abcabc", "abcabd", ["mmm"]), SimilarityTripletSample("xyz", "xyw", ["nnn"])]
    assert made.valid_step(hard)["loss"] > made.valid_step(easy)["loss"]


# ---------------------------------------------------------------------------------------- switches


def mixed_samples():
    return [SimilarityPairSample(f"word {i}", torch.full((4,), float(i))) for i in range(8)]


def switch(trainable=False):
    torch.manual_seed(0)
    image = ModuleEncoder(torch.nn.Linear(4, 6), embedding_size=6, trainable=trainable)
    return SwitchEncoder({"text": NgramEncoder(6, trainable=trainable), "image": image})


def switch_head(size):
    return SwitchHead(size, {"text": GatedHead(size), "image": SkipConnectionHead(size)})


@pytest.mark.parametrize("cache", CACHES)
def test_texts_and_images_train_in_one_space(cache):
    loader = PairsSimilarityDataLoader(mixed_samples(), batch_size=4)
    made = fitted(model(switch_head, switch(), cache=cache), loader)
    items = ["word 1", torch.ones(4), "word 2"]
    together = made.model.encode(items, to_numpy=False)
    apart = torch.stack([made.model.encode([item], to_numpy=False)[0] for item in items])
    torch.testing.assert_close(together, apart)
    plain = fitted(model(switch_head, switch()), loader)
    for name, value in plain.model.head.state_dict().items():
        torch.testing.assert_close(made.model.head.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_a_switch_in_a_trainable_encoder_trains_both_parts():
    made = model(EmptyHead, switch(trainable=True))
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    fitted(made, PairsSimilarityDataLoader(mixed_samples(), batch_size=4))
    changed = {
        name.split(".")[2] for name, value in made.model.state_dict().items() if not torch.equal(value, before[name])
    }
    assert {"text", "image"} <= changed


def test_a_switch_head_without_a_switch_is_refused_at_construction():
    with pytest.raises(
        ConfigError, match=r"SwitchHead wants to know \['encoder'\] of each item, which no encoder says"
    ):
        model(switch_head, BagEncoder(6))
    with pytest.raises(
        ConfigError, match=r"has the options \['image', 'text'\], but SwitchHead has none for \['image'\]"
    ):
        model(lambda size: SwitchHead(size, {"text": GatedHead(size)}), switch())


def test_a_switch_inside_an_asymmetric_head_knows_both(tmp_path):
    made = SimilarityModel(switch(), AsymmetricHead(6, query=switch_head(6), document=GatedHead(6))).eval()
    features = made.collate(["text", torch.ones(4)], [QUERY, DOCUMENT])
    assert set(features["meta"]) == {"side", "encoder"}
    assert made(features).shape == (2, 6)


def test_an_encoder_cannot_take_the_place_of_the_meta():
    with pytest.raises(ConfigError, match="an encoder cannot be named 'meta'"):
        SimilarityModel({"meta": BagEncoder()}, EmptyHead(8))


@pytest.mark.parametrize("workers", [0, 2])
def test_sides_reach_the_workers(workers):
    made = model()
    loader = PairsSimilarityDataLoader(pair_samples(8), batch_size=4, num_workers=workers)
    features, _ = next(iter(made.setup_dataloader(loader)))
    assert features["meta"]["side"].tolist() == [QUERY] * 4 + [DOCUMENT] * 4


def test_unprepared_loaders_of_triplets_train_too():
    made = model()
    loader = DataLoader(triplet_samples(), batch_size=4, collate_fn=list)
    before = made.model.head.state_dict()["query.fc_0.weight"].clone()
    fitted(made, loader)
    assert not torch.equal(made.model.head.state_dict()["query.fc_0.weight"], before)


def test_two_encoders_side_by_side_with_one_that_has_prompts():
    made = SimilarityModel({"a": Prompted(), "b": BagEncoder(4)}, EmptyHead(12))
    query = made.encode_query("abc", to_numpy=False)
    assert torch.equal(query[:8], made.encode("zzzabc", to_numpy=False)[:8])
    assert torch.equal(query[8:], made.encode("abc", to_numpy=False)[8:])


def test_group_loaders_still_take_groups():
    loader = GroupSimilarityDataLoader([SimilarityGroupSample("ab", 1), SimilarityGroupSample("cd", 1)], batch_size=2)
    assert next(iter(loader)).sides is None
