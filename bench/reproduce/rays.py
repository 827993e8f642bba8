"""Blocks on Ray: one worker a card, or a core; a lost worker's blocks are done again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .protocol import Block
from .store import Row
from .work import carry_out
from .worlds import Place

if TYPE_CHECKING:
    from .run import Hand


@contextmanager
def ray_workers(place: Place, count: int, work: Callable[[Block, Place], list[Row]] = carry_out) -> Iterator[Hand]:
    """Use the Ray cluster of ``RAY_ADDRESS``, or begin one of ``count`` workers on this machine.

    Every machine needs the repository, and the folder at the same path.
    """
    try:
        import ray
    except ImportError as error:
        raise SystemExit(f"Ray is not installed ({error}); install it with: pip install ray.") from error
    ray.init(num_cpus=count, include_dashboard=False, ignore_reinit_error=True, log_to_driver=False)
    cards = int(ray.cluster_resources().get("GPU", 0))
    # Endless retries: a block is written whole by this process alone, so nothing is there twice.
    remote = ray.remote(num_cpus=1, num_gpus=1 if cards else 0, max_retries=-1)(work)

    def by_ray(blocks: Iterable[Block]) -> Iterator[tuple[Block, list[Row]]]:
        at_work = {remote.remote(block, place): block for block in blocks}
        while at_work:
            done, _ = ray.wait(list(at_work), num_returns=1)
            yield at_work.pop(done[0]), ray.get(done[0])

    try:
        yield by_ray
    finally:
        ray.shutdown()
