"""The attributes that describe tree ensembles, as arrays over the nodes of all trees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .....compiler.ir import DType
from .....compiler.ir.ops.forest import EXACT, FEATURE, NAN_PASSES, node_type
from ...site import NotSupported, Site
from .scores import floats

Array = np.ndarray[Any, Any]
MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ", "LEAF")
LEQ, LT, GTE, GT, EQ, NEQ, LEAF = range(7)
MEMBER = 6  # of opset 5, where leaves are apart
DENSE_LIMIT = 1 << 24  # elements of a table leaf x target


@dataclass
class Forest:
    """Nodes of all trees in arrays; `children` is [nodes, 2]: where to go on false, on true.

    leaf: the entry of `weights` that a node stands for, -1 for inner nodes.
    weights, present: [leaves, targets], the value of a leaf for a target, and if it has one.
    """

    feature: Array
    threshold: Array
    mode: Array  # LEQ or EQ once normalised; leaves: LEQ
    missing: Array  # whether NaN goes to the true child
    children: Array
    roots: Array
    leaf: Array
    weights: Array
    present: Array

    def normalise(self) -> None:
        """Express every comparison by <= or ==, exchanging children where need be."""
        lower = np.nextafter(self.threshold, self.threshold.dtype.type(-np.inf))
        tiny = np.finfo(lower.dtype).tiny  # compiled code takes smaller numbers for 0
        lower = np.where(np.abs(lower) < tiny, np.where(lower < 0, -tiny, 0), lower)
        mode = self.mode
        # x < t is x <= (the number before t); >=, > and != are the opposites of <, <= and ==
        self.threshold = np.where((mode == LT) | (mode == GTE), lower, self.threshold)
        swapped = (mode == GTE) | (mode == GT) | (mode == NEQ)
        self.children[swapped] = self.children[swapped][:, ::-1]
        # NaN fails the comparison (but !=) and goes to the false child if it does not track true
        held = self.missing | (mode == NEQ)
        self.missing = np.where(swapped, ~held, self.missing)
        self.mode = np.where((mode == EQ) | (mode == NEQ), EQ, LEQ)

    def levels(self) -> Iterator[Array]:
        """The nodes at every distance from the roots.

        Raises ValueError when children do not exist or nodes are their own ancestors.
        """
        level = self.roots
        for _ in range(len(self.leaf) + 1):
            if not level.size:
                return
            if level.min() < 0 or level.max() >= len(self.leaf):
                raise ValueError("a node of a tree does not exist")
            yield level
            level = np.unique(self.children[level[self.leaf[level] < 0]])
        raise ValueError("a node of a tree is its own ancestor")

    def nodes(self, dtype: DType) -> tuple[Array, str]:
        """The table of nodes for the operator `forest`, roots in front and others in pairs; which
        of its `TESTS` all nodes are. A node that has several parents is in several pairs."""
        self.normalise()
        inner, exact = self.leaf < 0, self.mode == EQ
        pairs = len(self.roots) + 2 * (np.cumsum(inner) - 1)
        order = np.concatenate([self.roots, self.children[inner].reshape(-1)])
        if len(order) > FEATURE or (self.feature > FEATURE).any():
            raise NotSupported(f"{len(order)} nodes, or their features, are too many")
        splits, own = inner[order], np.arange(len(order))
        table = np.zeros(len(order), node_type(dtype))
        table["threshold"] = np.where(splits, self.threshold[order], np.nan)
        table["next"] = np.where(splits, pairs[order], own)
        table["number"] = np.where(splits, 0, self.leaf[order])
        bits = self.feature | exact * EXACT | self.missing * NAN_PASSES
        table["test"] = np.where(splits, bits[order], 0)
        words = np.ascontiguousarray(table).view(np.int32).reshape(len(table), -1)
        if exact[inner].any():
            return words, "any"
        return words, "missing" if self.missing[inner].any() else "plain"

    def always_present(self) -> Array:
        """[targets]: whether every row gets some weight for a target."""
        speaks = np.ones((len(self.roots), self.weights.shape[1]), bool)
        tree, node = np.arange(len(self.roots)), self.roots
        while node.size:
            leaf = self.leaf[node]
            ends = leaf >= 0
            np.logical_and.at(speaks, tree[ends], self.present[leaf[ends]])
            tree, node = np.repeat(tree[~ends], 2), self.children[node[~ends]].reshape(-1)
            tree, node = np.unique(np.stack([tree, node]), axis=1)
        return np.asarray(speaks.any(0))


def classic_forest(s: Site, prefix: str, targets: int, dtype: DType) -> Forest:
    """The attributes nodes_* and class_* or target_* of the older operators.

    A node may have several parents: converters write membership in a set of categories as a chain
    of tests for equality that lead to one child. Raises ValueError when they do not fit together.
    """
    ids, trees = _ints(s, "nodes_nodeids"), _ints(s, "nodes_treeids")
    count = len(ids)
    place = {key: i for i, key in enumerate(zip(trees.tolist(), ids.tolist(), strict=True))}
    names = s.texts("nodes_modes", [])
    if not count or len(place) != count or len(names) != count or set(names) - set(MODES):
        raise ValueError("the nodes are not numbered once each, or have unknown modes")
    mode = np.array([MODES.index(name) for name in names])
    leaf = mode == LEAF

    def child(name: str) -> Array:
        wanted = zip(trees.tolist(), _ints(s, name, count).tolist(), strict=True)
        return np.array([i if leaf[i] else place.get(key, -1) for i, key in enumerate(wanted)])

    children = np.stack([child("nodes_falsenodeids"), child("nodes_truenodeids")], 1)
    inner = children[~leaf]
    roots = np.setdiff1d(np.arange(count), inner.reshape(-1))
    missing = _ints(s, "nodes_missing_value_tracks_true", count).astype(bool)
    owners = _ints(s, f"{prefix}_treeids")
    owned = zip(owners.tolist(), _ints(s, f"{prefix}_nodeids", len(owners)).tolist(), strict=True)
    nodes = np.array([place.get(key, -1) for key in owned], np.int64)
    wanted_ids = _ints(s, f"{prefix}_ids", len(nodes))
    values = floats(s, f"{prefix}_weights")
    if len(values) != len(nodes) or (len(nodes) and nodes.min() < 0):
        raise ValueError("the weights do not belong to nodes of the trees")
    leaves = np.flatnonzero(leaf)
    if len(leaves) * targets > DENSE_LIMIT:
        raise NotSupported(f"{len(leaves)} leaves times {targets} targets are too many")
    if len(wanted_ids) and not 0 <= wanted_ids.min() <= wanted_ids.max() < targets:
        raise ValueError(f"a weight is for a target outside of 0 to {targets - 1}")
    number = np.full(count, -1)
    number[leaves] = np.arange(len(leaves))
    kept = number[nodes] >= 0
    weights = np.zeros((len(leaves), targets), dtype.numpy)
    present = np.zeros((len(leaves), targets), bool)
    np.add.at(weights, (number[nodes][kept], wanted_ids[kept]), values[kept].astype(dtype.numpy))
    present[number[nodes][kept], wanted_ids[kept]] = True
    feature = np.where(leaf, 0, _ints(s, "nodes_featureids", count))
    threshold = floats(s, "nodes_values").astype(dtype.numpy)
    if len(threshold) != count:
        raise ValueError(f"{len(threshold)} thresholds for {count} nodes")
    mode = np.where(leaf, LEQ, mode)
    missing = missing & ~leaf
    forest = Forest(feature, threshold, mode, missing, children, roots, number, weights, present)
    if len(np.unique(np.concatenate([roots, *forest.levels()]))) != count:
        raise ValueError("no root leads to some of the nodes")
    return forest


def newer_forest(s: Site, targets: int) -> Forest:
    """The attributes of TreeEnsemble (opset 5), where leaves have arrays of their own.

    A test for membership becomes a chain of tests for equality.
    Raises ValueError when the attributes do not fit together.
    """
    threshold, values = s.array("nodes_splits").reshape(-1), s.array("leaf_weights").reshape(-1)
    count, leaves = len(threshold), len(values)
    mode = s.array("nodes_modes").reshape(-1).astype(np.int64)
    ids = _ints(s, "leaf_targetids", leaves)
    if len(mode) != count or mode.min() < 0 or mode.max() > MEMBER or not leaves:
        raise ValueError("the nodes have no modes, or unknown ones, or there are no leaves")
    if not 0 <= ids.min() <= ids.max() < targets:
        raise ValueError(f"a leaf is for a target outside of 0 to {targets - 1}")
    missing = _ints(s, "nodes_missing_value_tracks_true", count).astype(bool)
    inner = _Inner(_ints(s, "nodes_featureids", count), threshold, mode, missing)
    sides = []
    for side in ("false", "true"):
        ends = _ints(s, f"nodes_{side}leafs", count).astype(bool)
        wanted = _ints(s, f"nodes_{side}nodeids", count)
        if wanted.min() < 0 or (wanted >= np.where(ends, leaves, count)).any():
            raise ValueError("a child node does not exist")
        sides.append(np.where(ends, -1 - wanted, wanted))
    inner.children = np.stack(sides, 1)
    if (mode == MEMBER).any():
        inner = _without_members(inner, s.array("membership_values").reshape(-1))
    count = len(inner.mode)
    children = np.where(inner.children < 0, count - 1 - inner.children, inner.children)
    own = np.repeat(np.arange(count, count + leaves), 2).reshape(-1, 2)
    pad = np.zeros(leaves, np.int64)
    weights = np.zeros((leaves, targets), values.dtype)
    weights[np.arange(leaves), ids] = values
    present = np.zeros((leaves, targets), bool)
    present[np.arange(leaves), ids] = True
    return Forest(
        np.concatenate([inner.feature, pad]),
        np.concatenate([inner.threshold, pad.astype(threshold.dtype)]),
        np.concatenate([inner.mode, pad]),
        np.concatenate([inner.missing, pad.astype(bool)]),
        np.concatenate([children, own]),
        _ints(s, "tree_roots"),
        np.concatenate([np.full(count, -1), np.arange(leaves)]),
        weights,
        present,
    )


@dataclass
class _Inner:
    """Inner nodes only; a negative child -1 - i is leaf i."""

    feature: Array
    threshold: Array
    mode: Array
    missing: Array
    children: Array = field(default_factory=lambda: np.zeros((0, 2), np.int64))


def _without_members(nodes: _Inner, members: Array) -> _Inner:
    """Nodes that test x in {a, b, ...} as chains x == a, else x == b, ...; sets end with NaN."""
    feature, threshold = nodes.feature.tolist(), nodes.threshold.tolist()
    mode, missing, children = nodes.mode.tolist(), nodes.missing.tolist(), nodes.children.tolist()
    ends = [*np.flatnonzero(np.isnan(members)).tolist(), len(members)]
    start = 0
    for node, end in zip(np.flatnonzero(nodes.mode == MEMBER).tolist(), ends, strict=False):
        values = members[start:end].tolist()
        if not values:
            raise ValueError(f"the membership test of node {node} has no members")
        start = end + 1
        no, yes = children[node]
        chain = [node, *range(len(mode), len(mode) + len(values) - 1)]
        for at, value, after in zip(chain, values, [*chain[1:], no], strict=True):
            if at == node:
                mode[at], threshold[at], children[at] = EQ, value, [after, yes]
                continue
            feature.append(feature[node])
            threshold.append(value)
            mode.append(EQ)
            missing.append(missing[node])
            children.append([after, yes])
    return _Inner(
        np.array(feature),
        np.array(threshold, nodes.threshold.dtype),
        np.array(mode),
        np.array(missing, bool),
        np.array(children),
    )


def _ints(s: Site, name: str, count: int | None = None) -> Array:
    """A list attribute; of `count` entries, or zeros where it is absent."""
    values = np.array(s.ints(name, [0] * (count or 0)), np.int64)
    if count is not None and len(values) != count:
        raise ValueError(f"{name} has {len(values)} entries, not {count}")
    return values
