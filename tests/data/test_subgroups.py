from hypothesis import given
from hypothesis import strategies as st

from simtrain.data import shared_object_subgroups


def brute_force(queries, documents):
    """Merge pairs that share an object until nothing changes."""
    numbers = list(range(len(queries)))
    changed = True
    while changed:
        changed = False
        for i in range(len(queries)):
            for j in range(len(queries)):
                linked = queries[i] == queries[j] or documents[i] == documents[j]
                if linked and numbers[i] != numbers[j]:
                    numbers[i] = numbers[j] = min(numbers[i], numbers[j])
                    changed = True
    return numbers


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12))
def test_two_pairs_share_a_number_exactly_if_linked_through_shared_objects(pairs):
    queries, documents = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    got = shared_object_subgroups(queries, documents)
    expected = brute_force(queries, documents)
    for i in range(len(pairs)):
        for j in range(len(pairs)):
            assert (got[i] == got[j]) == (expected[i] == expected[j])
    assert min(got) == 1, "0 means that no subgroup was given"


def test_a_query_equal_to_a_document_is_another_object():
    assert shared_object_subgroups(["a", "b"], ["b", "c"]) == [1, 2]


def test_numbers_follow_the_order_of_appearance():
    assert shared_object_subgroups(["z", "a", "z", "m"], ["1", "2", "3", "4"]) == [1, 2, 1, 3]
