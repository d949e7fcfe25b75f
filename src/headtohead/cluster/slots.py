"""What each task takes of a machine, and which machines there are."""

from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from headtohead.cluster.home import RunError
from headtohead.profiling.machine import PACKAGES, describe

PROFILE = "profile"
ON_GPU = ("baselines", "train", "generate")  # what runs there if there is one
HARDWARE = ("gpu", "processor", "cores")


@dataclass(frozen=True)
class Slots:
    """How tasks share machines.

    Args:
        per_gpu: tasks on one GPU at once.
        threads: cores of a task on a CPU, and OpenMP threads.
        small: whether two trainings share these.
    """

    per_gpu: int
    threads: int
    small: bool

    def needs(self, stage: str) -> dict[str, Any]:
        """Ray's options for a stage's task."""
        kind = stage.partition("@")[0]
        if kind == PROFILE:
            there = next(node["Resources"] for node in ray.nodes() if node["NodeID"] == _here())
            return {"num_cpus": there["CPU"], "num_gpus": there.get("GPU", 0), "scheduling_strategy": self.home()}
        if kind in ON_GPU and ray.cluster_resources().get("GPU"):
            return {"num_cpus": 1, "num_gpus": 1 / self.per_gpu}
        return {"num_cpus": max(1, self.threads // 2) if kind == "train" and self.small else self.threads}

    def home(self) -> NodeAffinitySchedulingStrategy:
        return NodeAffinitySchedulingStrategy(_here(), soft=False)


def _here() -> str:
    return ray.get_runtime_context().get_node_id()


def compare_machines() -> list[str]:
    """How the hardware of other machines differs from this one's, one line each.

    Raises:
        RunError: their versions do, or they have GPUs and this one, on which times are taken, has none.
    """
    ours, lines = describe(), []
    nodes = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != _here()]
    look = ray.remote(describe)
    asked = [look.options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
             .remote() for node in nodes]
    for node, answer in zip(nodes, asked, strict=True):
        name = node["NodeManagerHostname"]
        try:
            theirs = ray.get(answer)
        except RayError:
            lines.append(f"{name} has gone; the others do the work")
            continue
        if versions := _differences(ours, theirs, PACKAGES):
            raise RunError(f"{name} has other versions than this machine: {versions}; install requirements.lock on "
                           "both")
        if theirs["gpu"] and not ours["gpu"]:
            raise RunError(f"{name} has a GPU and this machine has none, but times are taken here; start `h2h run` on "
                           "a machine like those that train")
        if hardware := _differences(ours, theirs, HARDWARE):
            lines.append(f"{name} differs from this machine, on which times are taken: {hardware}")
    return lines


def _differences(ours: dict[str, Any], theirs: dict[str, Any], keys: tuple[str, ...]) -> str:
    return ", ".join(f"{key} {theirs[key]} (here {ours[key]})" for key in keys if ours[key] != theirs[key])
