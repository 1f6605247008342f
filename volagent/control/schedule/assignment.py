"""Which claim gets which volume, for all claims together. Pure.

The cheapest perfect matching of a bipartite graph (the Hungarian method, with potentials): where a
greedy choice leaves the last claim without a volume, the earlier ones are moved. With `n` claims
and `m` choices the work is at most `n * n * m`.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

C = TypeVar("C")

_NO_EDGE = 1 << 200
"""More than any sum of real costs: bytes, and one step per volume that must be made."""


def assign(costs: Sequence[Mapping[C, int]]) -> tuple[C, ...] | None:
    """For each row a choice of its own such that the sum of costs is least, or None.

    `costs[i]` maps the choices that are open to row `i` to their costs (0 or more). Among equal
    sums the choices listed first are preferred, so that the answer does not depend on chance.
    """
    columns = list(dict.fromkeys(choice for row in costs for choice in row))
    if len(columns) < len(costs):
        return None
    table = [[row.get(choice, _NO_EDGE) for choice in columns] for row in costs]
    owner = _match(table, len(columns))
    chosen: dict[int, C] = {}
    for column, row in enumerate(owner):
        if row >= 0:
            if table[row][column] >= _NO_EDGE:
                return None
            chosen[row] = columns[column]
    return tuple(chosen[row] for row in range(len(costs)))


def _match(table: Sequence[Sequence[int]], width: int) -> list[int]:
    """The row that owns each column (-1: nobody); every row owns one."""
    row_price = [0] * len(table)
    column_price = [0] * width
    owner = [-1] * width
    for new in range(len(table)):
        slack = [_NO_EDGE * 4] * width
        came_from = [-1] * width
        visited = [False] * width
        row, at = new, -1
        while True:
            nearest, step = -1, _NO_EDGE * 8
            for column in range(width):
                if visited[column]:
                    continue
                cost = table[row][column] - row_price[row] - column_price[column]
                if cost < slack[column]:
                    slack[column], came_from[column] = cost, at
                if slack[column] < step:
                    nearest, step = column, slack[column]
            row_price[new] += step
            for column in range(width):
                if visited[column]:
                    row_price[owner[column]] += step
                    column_price[column] -= step
                else:
                    slack[column] -= step
            visited[nearest] = True
            at = nearest
            if owner[at] < 0:
                break
            row = owner[at]
        while at >= 0:  # let everybody on the path move on
            before = came_from[at]
            owner[at] = owner[before] if before >= 0 else new
            at = before
    return owner
