"""Two processes that train together fill one DISK cache once, and end with the same embeddings everywhere."""

from pathlib import Path

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
