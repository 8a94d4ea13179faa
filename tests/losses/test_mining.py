import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simtrain.losses.mining import count_below, farthest_index, nearest_index, nearest_index_beyond


def draw(seed: int, n: int, m: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    # Few different values, so that ties are common.
    distances = torch.randint(5, (n, m), generator=generator).double() / 4
    return distances, torch.rand(n, m, generator=generator) < 0.6


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 5), m=st.integers(1, 8))
def test_picks_equal_a_search_by_hand(seed, n, m):
    distances, among = draw(seed, n, m)
    (near, near_found), (far, far_found) = nearest_index(distances, among), farthest_index(distances, among)
    beyond = nearest_index_beyond(distances, among)
    below = count_below(distances, among, distances)
    up_to = count_below(distances, among, distances, or_equal=True)
    for i in range(n):
        row = [distances[i, j].item() for j in range(m) if among[i, j]]
        for j in range(m):
            limit = distances[i, j].item()
            assert below[i, j] == sum(value < limit for value in row)
            assert up_to[i, j] == sum(value <= limit for value in row)
        assert near_found[i] == far_found[i] == bool(row)
        if not row:
            continue
        assert among[i, near[i]]
        assert among[i, far[i]]
        assert distances[i, near[i]] == min(row)
        assert distances[i, far[i]] == max(row)
        for j in range(m):
            farther = [value for value in row if value > distances[i, j]]
            assert among[i, beyond[i, j]]
            assert distances[i, beyond[i, j]] == (min(farther) if farther else max(row))


def test_negative_distances_are_compared_as_they_are():
    distances, among = torch.tensor([[-3.0, -2.0, -1.0]]), torch.tensor([[True, True, False]])
    assert farthest_index(distances, among)[0].tolist() == [1]
    assert nearest_index(distances, among)[0].tolist() == [0]


def test_a_nan_is_found_so_that_it_is_noticed():
    distances, among = torch.tensor([[0.5, float("nan")]]), torch.tensor([[True, True]])
    for pick in (nearest_index, farthest_index):
        index, found = pick(distances, among)
        assert (index.tolist(), found.tolist()) == ([1], [True])
