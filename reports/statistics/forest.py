"""A random forest whose trees are integrated exactly: main effects, interactions and marginals.

Source:
    F. Hutter, H. Hoos, K. Leyton-Brown: "An efficient approach for assessing hyperparameter
    importance", ICML 2014, Algorithm 2 and Eq. 7.
"""

# Axes: T trees, L leaves of a tree, A axes, K chosen axes, G points of a grid.

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LEAVES = 64
DRAWN = 1000
"""Largest bootstrap sample of a tree; a smaller bootstrap sample makes the interval wider, not
narrower."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class _Tree:
    """Leaves as boxes."""

    low_LA: Array
    high_LA: Array
    values_L: Array
    sizes_LA: Array
    """Share of the axis that each leaf covers."""


@dataclass(frozen=True, slots=True)
class Forest:
    """Trees on bootstrap samples over a common box."""

    trees: Sequence[_Tree]
    box: Array
    """Lower and upper ends (2, A)."""

    @classmethod
    def grow(cls, x: Array, y: Array, box: Array, num_trees: int) -> "Forest":
        """Fit the trees.

        Args:
            x: (trials, A), finite, inside the box.
            y: (trials,).
        """
        # takes as long to load as all else together, and a refresh seldom needs it
        from sklearn.ensemble import RandomForestRegressor

        forest = RandomForestRegressor(
            num_trees,
            max_leaf_nodes=LEAVES,
            max_samples=min(1.0, DRAWN / len(y)),
            max_features=0.7,
            random_state=0,
            n_jobs=1,
        ).fit(x, y)
        trees = []
        for estimator in forest.estimators_:
            low, high, values = _leaves(estimator.tree_, box)
            trees.append(_Tree(low, high, values, (high - low) / (box[1] - box[0])))
        return cls(trees, box)

    def main_effects(self, axes: Sequence[int]) -> Array:
        """Share of each tree's variance that one axis alone explains (T, K); 0 of a bare root."""
        return np.array(
            [[self._variance(t, k) / total for k in axes] for t, total in self._totals()]
        )

    def interactions(self, pairs: Sequence[tuple[int, int]]) -> Array:
        """Share of each tree's variance that two axes explain together but not alone (T, K)."""
        found = []
        for tree, total in self._totals():
            alone = {k: self._variance(tree, k) for k in {k for pair in pairs for k in pair}}
            found.append([
                max(0.0, self._pair_variance(tree, a, b) - alone[a] - alone[b]) / total
                for a, b in pairs
            ])  # fmt: skip
        return np.array(found)

    def marginal(self, axis: int, grid: Array) -> Array:
        """Each tree's mean over all other axes at the points of a grid (T, G)."""
        return np.array([
            _outer(t, axis) @ _inside(t, axis, grid) for t in self.trees
        ])  # fmt: skip

    def pair_marginal(self, a: int, b: int, grid_a: Array, grid_b: Array) -> Array:
        """Mean over trees and all other axes on a grid (G, G')."""
        total = np.zeros((len(grid_a), len(grid_b)))
        for tree in self.trees:
            weighted = _inside(tree, a, grid_a) * _outer(tree, a, b)[:, None]
            total += weighted.T @ _inside(tree, b, grid_b)
        return total / len(self.trees)

    def _totals(self) -> list[tuple[_Tree, float]]:
        found = []
        for tree in self.trees:
            weight = tree.sizes_LA.prod(axis=1)
            total = float(weight @ (tree.values_L - self._mean(tree)) ** 2)
            found.append((tree, total or 1.0))  # a bare root explains nothing: 0 of 1
        return found

    def _mean(self, tree: _Tree) -> float:
        return float(tree.sizes_LA.prod(axis=1) @ tree.values_L)

    def _variance(self, tree: _Tree, axis: int) -> float:
        edges, shares = self._edges(tree, axis)
        marginal = _outer(tree, axis) @ _inside(tree, axis, edges)
        return float(shares @ (marginal - self._mean(tree)) ** 2)

    def _pair_variance(self, tree: _Tree, a: int, b: int) -> float:
        (edges_a, shares_a), (edges_b, shares_b) = self._edges(tree, a), self._edges(tree, b)
        weighted = _inside(tree, a, edges_a) * _outer(tree, a, b)[:, None]
        marginal = weighted.T @ _inside(tree, b, edges_b)
        return float(shares_a @ (marginal - self._mean(tree)) ** 2 @ shares_b)

    def _edges(self, tree: _Tree, axis: int) -> tuple[Array, Array]:
        """Middles of the stretches with a constant marginal, and their shares of the axis."""
        edges = np.unique(np.concatenate([tree.low_LA[:, axis], tree.high_LA[:, axis]]))
        reach = self.box[1, axis] - self.box[0, axis]
        return (edges[1:] + edges[:-1]) / 2, np.diff(edges) / reach


def _inside(tree: _Tree, axis: int, grid: Array) -> Array:
    """Which leaves (L, G) hold each point; a point between two leaves is the lower one's."""
    low, high = tree.low_LA[:, axis, None], tree.high_LA[:, axis, None]
    at_start = (low == low.min()) & (grid <= low)
    found: Array = at_start | ((low < grid) & (grid <= high))
    return found


def _outer(tree: _Tree, *axes: int) -> Array:
    """A leaf's value times the share that it covers of the other axes (L,)."""
    found: Array = np.delete(tree.sizes_LA, axes, axis=1).prod(axis=1) * tree.values_L
    return found


def _leaves(tree: Any, box: Array) -> tuple[Array, Array, Array]:
    """Lower and upper corners (leaves, axes) and values (leaves,) of a tree's leaves."""
    left, right, feature, threshold = (
        tree.children_left, tree.children_right, tree.feature, tree.threshold,
    )  # fmt: skip
    low = np.tile(box[0], (tree.node_count, 1))
    high = np.tile(box[1], (tree.node_count, 1))
    for node in range(tree.node_count):  # sklearn numbers a node before its children
        if left[node] < 0:
            continue
        for child, bound in ((left[node], high), (right[node], low)):
            low[child], high[child] = low[node], high[node]
            bound[child, feature[node]] = threshold[node]
    leaves = left < 0
    return low[leaves], high[leaves], tree.value[leaves, 0, 0]
