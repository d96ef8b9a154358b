"""What a whole graph can do otherwise: passes that may be left out, merges that may be or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace

from ....compiler.compilation import CompileOptions
from ....compiler.ir.copying import copied
from ....compiler.ir.flops import graph_flops
from ....compiler.ir.graph import Graph
from ....compiler.ir.groups import group_key, is_fused
from ....compiler.kernel.forms.bands_choice import bands_forms
from ....compiler.kernel.forms.form import BandsForm, Form, RowBlocksForm
from ....compiler.kernel.forms.row_blocks_choice import row_blocks_forms
from ....compiler.kernel.schedule.choices import Offer
from ....compiler.kernel.schedule.graph_choice import GRAPH, GraphChoice
from ....compiler.target import CpuTarget
from ....compiler.tuning.task import GraphAlternative, digest, packed
from ..pipeline import form_groups, fuse_groups

MOST_MERGED = 6  # merges that are offered one by one
TEXTS = {
    "channels_first": "channels last everywhere",
    "side_by_side": "products one by one",
    "bands": "no bands of convolutions",
    "row_blocks": "no blocks of attention",
}
FORMS: dict[str, type[Form]] = {"bands": BandsForm, "row_blocks": RowBlocksForm}


def alternatives(
    imported: Graph, fused: Graph, target: CpuTarget, options: CompileOptions
) -> list[GraphAlternative]:
    """Those of a model. imported: before any pass; fused: its groups, before they have forms.

    Whole passes first, then single merges, those of most arithmetic first; without what would
    change nothing.
    """
    if options.opt_level <= 0:
        return []
    offers: list[Offer] = []
    usual = _formed(fused, target, options, offers)
    found = []
    for name in (field.name for field in fields(GraphChoice)):
        changed = _with_graph(options, name)
        early = name in ("channels_first", "side_by_side")
        graph = _fused(imported, target, changed) if early else fused
        if _formed(graph, target, changed, []) != usual:
            made = _alternative(TEXTS[name], {GRAPH: {name: False}}, name == "bands")
            found.append(replace(made, replaces=_formed_as(FORMS.get(name), offers)))
    merges = sorted(_merges(offers), key=lambda pair: -pair[0])
    return [*found, *(one for _, one in merges[:MOST_MERGED])]


def _formed_as(kind: type[Form] | None, offers: Sequence[Offer]) -> frozenset[str]:
    """The keys of the groups that have a form of this kind."""
    return frozenset(own.key for own in offers if own.form is not None and own.kind is kind)


def _with_graph(options: CompileOptions, name: str) -> CompileOptions:
    choice = {**asdict(options.choices.graph), name: False}
    choices = replace(options.choices, by_key={**options.choices.by_key, GRAPH: choice})
    return replace(options, choices=choices)


def _fused(imported: Graph, target: CpuTarget, options: CompileOptions) -> Graph:
    graph = copied(imported)
    fuse_groups(graph, target, replace(options, dump_after=None))
    return graph


def _formed(
    fused: Graph, target: CpuTarget, options: CompileOptions, offers: list[Offer]
) -> list[tuple[str, str]]:
    """The groups that come of a graph, with their forms. offers: gets those that have a choice."""
    graph = copied(fused)
    choices = replace(options.choices, offered=offers.append)
    form_groups(graph, target, replace(options, choices=choices, dump_after=None))
    return [
        (group_key(node.inputs, node.regions[0]), str(node.attrs["form"]))
        for node in graph.walk()
        if is_fused(node)
    ]


def _merges(offers: Sequence[Offer]) -> Iterator[tuple[int, GraphAlternative]]:
    """Groups that could be merged, or stay apart, with their arithmetic."""
    seen: set[str] = set()
    for offer in offers:
        if offer.key in seen or offer.kind not in (BandsForm, RowBlocksForm):
            continue
        seen.add(offer.key)
        flops = graph_flops(offer.region)
        weight = flops if isinstance(flops, int) else 0
        exact = offer.kind is BandsForm  # each sum is added up in the same order
        if offer.form is not None:
            made = _alternative(f"apart: {_name(offer)}", {offer.key: {"form": ""}}, exact)
            yield weight, replace(made, replaces=frozenset({offer.key}))
            continue
        forms = bands_forms(offer.region) if offer.kind is BandsForm else row_blocks_forms(
            offer.region.nodes
        )  # fmt: skip
        legal = [form for form in forms if not offer.illegal(form)]
        if legal:
            form = legal[len(legal) // 2]
            choices = {offer.key: {"form": str(form)}}
            yield weight, _alternative(f"{form}: {_name(offer)}", choices, exact)


def _name(offer: Offer) -> str:
    return "+".join(node.op for node in offer.region.nodes if node.op != "fused") or "attention"


def _alternative(
    name: str, choices: Mapping[str, Mapping[str, object]], exact: bool
) -> GraphAlternative:
    return GraphAlternative(digest(packed(choices)), name, choices, exact)
