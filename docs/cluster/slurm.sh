#!/bin/bash
# `h2h run` on all nodes of a Slurm job. Submit it in the repository: sbatch docs/cluster/slurm.sh
#SBATCH --job-name=h2h
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --no-kill
#SBATCH --requeue
#SBATCH --open-mode=append

set -eu
source .venv/bin/activate
export XDG_CACHE_HOME="/tmp/$USER"         # clones and checkpoints: a disk of each node's own, at the same path
export RAY_worker_niceness=0               # what is timed must not run with a low priority
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN  # or anyone on the network can run code in this job

head=$(hostname):6379
ray start --head --include-dashboard=false --disable-usage-stats --block &
trap 'kill $(jobs -p) || true' EXIT
# A worker that outlives the head queues the job again: by --no-kill, the job would go on without this script.
if [ "$SLURM_NNODES" -gt 1 ]; then
    srun --no-kill --nodes=$((SLURM_NNODES - 1)) --ntasks=$((SLURM_NNODES - 1)) --exclude="${head%:*}" --cpu-bind=none \
        bash -c "ray start --address=$head --disable-usage-stats --block
                 ray health-check --address=$head || scontrol requeue $SLURM_JOB_ID" &
fi
timeout 120 bash -c 'until [ "$(ray status 2>/dev/null | grep -c " node_")" -ge "$SLURM_NNODES" ]; do sleep 2; done'

h2h run --address auto &
run=$!
# Two minutes before the time is up: stop as Ctrl+C does, and go on in the next turn.
trap 'kill "$run"; wait "$run" || true; scontrol requeue "$SLURM_JOB_ID"; exit' USR1
wait "$run"
