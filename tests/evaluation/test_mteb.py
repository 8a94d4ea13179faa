"""A model as mteb's encoder, on tasks that are made here."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import pytrec_eval
import torch

from simtrain import CacheConfig, CacheType, SimilarityModel
from simtrain.cache import CachedModel
from simtrain.data.sides import QUERY
from simtrain.encoders import Encoder, PrecomputedEncoder
from simtrain.errors import ConfigError, DataError
from simtrain.evaluation import as_mteb
from simtrain.heads import AsymmetricHead, EmptyHead, LinearHead

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # mteb's own, of its imports
    import mteb
    from datasets import Dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata

CORPUS = {"d1": "aab", "d2": "bba", "d3": "ccc", "d4": "abc"}
QUERIES = {"q1": "aa", "q2": "bb", "q3": "c"}
QRELS = {"q1": {"d1": 1}, "q2": {"d1": 1, "d2": 1}, "q3": {"d3": 1, "d4": 1}}


def with_prompt(texts, sides):
    return ["qqq" + text if side == QUERY else text for text, side in zip(texts, sides, strict=True)]


class LetterEncoder(Encoder):
    """Counts letters; a query's prompt adds some, so that sides can be told."""

    trainable = False
    embedding_size = 4

    def get_collate_fn(self):
        return lambda texts: torch.tensor([[text.count(c) + 0.1 for c in "abcq"] for text in texts])

    def get_side_fn(self):
        return with_prompt

    def forward(self, batch):
        return batch


class Letters(AbsTaskRetrieval):
    metadata = TaskMetadata(
        name="Letters",
        description="letters",
        reference=None,
        dataset={"path": "made/here", "revision": "1"},
        type="Retrieval",
        category="t2t",
        modalities=["text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
        date=None,
        domains=None,
        task_subtypes=None,
        license=None,
        annotations_creators=None,
        dialect=None,
        sample_creation=None,
        bibtex_citation=None,
    )

    def load_data(self, **kwargs):
        corpus = Dataset.from_list([{"id": name, "title": "", "text": text} for name, text in CORPUS.items()])
        queries = Dataset.from_list([{"id": name, "text": text} for name, text in QUERIES.items()])
        split = {"corpus": corpus, "queries": queries, "relevant_docs": QRELS, "top_ranked": None}
        self.dataset = {"default": {"test": split}}
        self.data_loaded = True


def asymmetric_model():
    torch.manual_seed(3)
    return SimilarityModel(LetterEncoder(), AsymmetricHead(query=LinearHead(4, 3), document=LinearHead(4, 3)))


def expected_scores(model):
    queries, documents = model.encode_query(list(QUERIES.values())), model.encode_document(list(CORPUS.values()))
    similarity = torch.nn.functional.cosine_similarity(
        torch.tensor(queries)[:, None], torch.tensor(documents)[None], dim=2
    ).tolist()
    run = {q: dict(zip(CORPUS, row, strict=True)) for q, row in zip(QUERIES, similarity, strict=True)}
    scores = pytrec_eval.RelevanceEvaluator(QRELS, {"ndcg_cut_10", "recall_1"}).evaluate(run)
    return {name: np.mean([values[name] for values in scores.values()]) for name in ("ndcg_cut_10", "recall_1")}


def test_mteb_evaluates_models_and_keeps_their_results_apart(tmp_path):
    cache = mteb.ResultCache(tmp_path)
    first, second = asymmetric_model(), asymmetric_model()
    assert as_mteb(first).revision == as_mteb(second).revision
    with torch.no_grad():
        next(second.head.query.parameters()).mul_(-1)
    assert as_mteb(first).revision != as_mteb(second).revision
    assert as_mteb(first, revision="mine").mteb_model_meta.revision == "mine"
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mteb's own
        for model in (first, second):
            results = mteb.evaluate(as_mteb(model), Letters(), cache=cache, show_progress_bar=False)
            found.append(results.task_results[0].scores["test"][0])
    for scores, model in zip(found, (first, second), strict=True):
        expected = expected_scores(model)
        assert scores["ndcg_at_10"] == pytest.approx(expected["ndcg_cut_10"], abs=1e-5)
        assert scores["recall_at_1"] == pytest.approx(expected["recall_1"], abs=1e-5)
    assert found[0]["ndcg_at_10"] != found[1]["ndcg_at_10"]


def test_it_is_an_encoder_to_mteb():
    encoder = as_mteb(SimilarityModel(LetterEncoder(), EmptyHead(4)), "me/letters")
    assert isinstance(encoder, mteb.EncoderProtocol)
    meta = encoder.mteb_model_meta
    assert (meta.name, meta.embed_dim, meta.similarity_fn_name.value) == ("me/letters", 4, "cosine")


@pytest.mark.parametrize("cached", [False, True])
def test_sides_are_respected(cached):
    model = SimilarityModel(LetterEncoder(), EmptyHead(4))
    encoder = as_mteb(CachedModel(model, CacheConfig(CacheType.CPU)) if cached else model)
    batches = [{"text": ["ab", "c"]}, {"text": ["a"]}]
    texts = ["ab", "c", "a"]
    query = encoder.encode(batches, prompt_type=mteb.types.PromptType.query)
    np.testing.assert_array_equal(query, model.encode_query(texts))
    np.testing.assert_array_equal(encoder.encode(batches, prompt_type="document"), model.encode_document(texts))
    np.testing.assert_array_equal(encoder.encode(batches), model.encode(texts))
    assert query[0, 3] == pytest.approx(3.1)
    assert query.dtype == np.float32


def test_a_model_with_a_head_for_each_side_encodes_texts_without_a_side_as_queries():
    model = asymmetric_model()
    np.testing.assert_array_equal(as_mteb(model).encode([{"text": ["ab"]}]), model.encode_query(["ab"]))


def test_images_are_encoded_and_mixed_batches_refused():
    encoder = as_mteb(SimilarityModel(PrecomputedEncoder(2), EmptyHead(2)), batch_size=1)
    assert encoder.encode([{"image": [(1.0, 2.0)]}], batch_size=7, show_progress_bar=True).tolist() == [[1.0, 2.0]]
    with pytest.raises(DataError, match="one modality of text, image, audio, video; mteb's batch has text and image"):
        encoder.encode([{"image": [(1.0, 2.0)], "text": ["a"]}])
    with pytest.raises(DataError, match="mteb's batch has only 'body'"):
        encoder.encode([{"body": ["a"]}])


def test_similarity_is_the_cosine():
    encoder = as_mteb(SimilarityModel(PrecomputedEncoder(2), EmptyHead(2)))
    first, second = np.array([[3.0, 4.0], [1.0, 0.0]], dtype=np.float16), torch.tensor([[0.0, 2.0], [2.0, 0.0]])
    torch.testing.assert_close(encoder.similarity(first, second), torch.tensor([[0.8, 0.6], [0.0, 1.0]]))
    torch.testing.assert_close(encoder.similarity_pairwise(first, second), torch.tensor([0.8, 1.0]))
    torch.testing.assert_close(encoder.similarity([3.0, 4.0], [[1, 0]]), torch.tensor([[0.6]]))


@pytest.mark.parametrize("name", ["model", "a/b/c", "/b", ""])
def test_a_wrong_name_is_refused(name):
    with pytest.raises(ConfigError, match="mteb knows models as 'organization/name'"):
        as_mteb(SimilarityModel(PrecomputedEncoder(2), EmptyHead(2)), name)
