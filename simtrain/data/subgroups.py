"""Which pairs must not serve as each other's negatives."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components


def shared_object_subgroups(queries: Sequence[Hashable], documents: Sequence[Hashable]) -> list[int]:
    """Number the pairs so that pairs which share a query or a document, directly or through others, get one number.

    A pair ranking loss takes the other pairs of a batch as negatives. Where the same description belongs to
    two entries, each would be pushed away from its own right answer; equal subgroups prevent that.

    Args:
        queries: First objects of the pairs.
        documents: Second objects of the pairs, the same number.

    Returns:
        One subgroup a pair, counted from 1 (0 stands for "none given").

    Example:
        >>> shared_object_subgroups(["sort", "sort", "find"], ["sorted()", "list.sort()", "str.find()"])
        [1, 1, 2]
    """
    query_ids = {query: number for number, query in enumerate(dict.fromkeys(queries))}
    document_ids = {document: number for number, document in enumerate(dict.fromkeys(documents))}
    rows = np.array([query_ids[query] for query in queries], dtype=np.int64)
    columns = np.array([document_ids[document] for document in documents], dtype=np.int64) + len(query_ids)
    size = len(query_ids) + len(document_ids)
    graph = coo_matrix((np.ones(len(rows), dtype=bool), (rows, columns)), shape=(size, size))
    component = connected_components(graph, directed=False)[1][rows]
    _, first, inverse = np.unique(component, return_index=True, return_inverse=True)
    # Number by first appearance, so that the result does not depend on scipy's labelling order.
    order = np.empty(len(first), dtype=np.int64)
    order[np.argsort(first)] = np.arange(1, len(first) + 1)
    return [int(number) for number in order[inverse]]
