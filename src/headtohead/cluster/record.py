"""What `dvc repro -s STAGE ...` does, except that dvc.lock is written once, not after each stage.

DVC writes all of dvc.lock anew whenever it records a stage, which with 1,000 trainings takes longer than most of them.
"""

import sys
from collections.abc import Sequence

from dvc.repo import Repo, lock_repo

PULL = "--pull"


def record(names: Sequence[str], pull: bool) -> None:
    """Restore stages from the run cache, and record as many as there are before the first that fails.

    Args:
        pull: whether the run cache and the results are in a remote.

    Raises:
        DvcException: a stage has failed; its command would have had to run.
    """
    with Repo(_wait_for_lock=True) as repo, lock_repo(repo), repo.scm_context():
        if pull:
            repo.stage_cache.pull(None)
        done = []
        try:
            for stage in (stage for name in names for stage in repo.stage.collect(name)):
                if stage.reproduce(upstream=[], pull=pull):
                    done.append(stage)
        finally:
            if done:
                done[0].dvcfile.dump_stages(done, update_pipeline=False)


if __name__ == "__main__":
    record([word for word in sys.argv[1:] if word != PULL], PULL in sys.argv)
