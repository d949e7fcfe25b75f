"""What DVC says of the pipeline: which stage reads which one's outputs, and which are out of date."""

from graphlib import TopologicalSorter

from dvc.repo import Repo

FIRST = ("fingerprint", "fetch-subset")  # run here: they read this machine and the user's own files
LAST = "report"  # runs here, too, once there is everything else
Graph = dict[str, set[str]]  # stages, in the order of dvc.yaml, each with those whose outputs it reads


def read_graph() -> Graph:
    with Repo() as repo:
        graph = repo.index.graph
        return {stage.addressing: {needed.addressing for needed in graph.successors(stage)}
                for stage in repo.index.stages}


def changed() -> set[str]:
    """The stages that DVC finds changed, not counting those that only read another one's outputs."""
    with Repo() as repo:
        return set(repo.status())


def out_of_date(graph: Graph) -> Graph:
    """The changed stages, and what reads their outputs, each with those of them that it waits for."""
    seeds, found = changed(), Graph()
    for stage in TopologicalSorter(graph).static_order():
        needed = graph[stage] & found.keys()
        if stage not in (*FIRST, LAST) and (needed or stage in seeds):
            found[stage] = needed
    return {stage: found[stage] for stage in graph if stage in found}
