"""Rounds of blocks, handed to workers: this process, further processes, or Ray's."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context

from .protocol import METHODS, Block, Tier, stages
from .store import Row, Store
from .tables import is_decided
from .work import carry_out, learn_ahead
from .worlds import Place

Hand = Callable[[Iterable[Block]], Iterator[tuple[Block, list[Row]]]]
"""Does blocks in any order, and yields each with its rows."""


@contextmanager
def workers(place: Place, count: int, with_ray: bool, say: Callable[[str], None]) -> Iterator[Hand]:
    """Who does the work: with one worker this process itself."""
    if with_ray:
        from .rays import ray_workers

        with ray_workers(place, count) as hand:
            yield hand
    elif count > 1:
        context = get_context("spawn")
        with ProcessPoolExecutor(
            count, mp_context=context, initializer=_end_with_parent, initargs=(os.getpid(),)
        ) as pool:

            def by_processes(blocks: Iterable[Block]) -> Iterator[tuple[Block, list[Row]]]:
                at_work = {pool.submit(carry_out, block, place): block for block in blocks}
                for done in as_completed(at_work):
                    yield at_work[done], done.result()

            yield by_processes
    else:

        def here(blocks: Iterable[Block]) -> Iterator[tuple[Block, list[Row]]]:
            wanted = list(blocks)
            learn_ahead(wanted, place, say)
            for block in wanted:
                yield block, carry_out(block, place, say)

        yield here


def _end_with_parent(parent: int) -> None:
    """Let this worker end when the command was killed, so that the next one does not find it at work on its words."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run(
    tier: Tier,
    things: list[tuple[str, str]],
    nouns: tuple[str, ...],
    store: Store,
    hand: Hand,
    say: Callable[[str], None],
) -> list[Row]:
    """Do what is missing, round after round; a method whose question is decided is left out of further rounds."""
    known: list[Block] = []
    begun, here = time.monotonic(), 0
    for first in range(0, tier.rounds, tier.together):
        rows = store.rows(known)
        undecided = [method for method in METHODS if not is_decided(rows, method)]
        if not undecided:
            say("every question is decided")
            break
        rounds = range(first, min(first + tier.together, tier.rounds))
        parts = zip(*(stages(tier, number, things, nouns) for number in rounds), strict=True)
        both = [[b for stage in part for b in stage if b.method in undecided] for part in parts]
        missing = sum(not store.is_done(block) for stage in both for block in stage)
        for stage in both:
            known += stage
            for block, found in hand([block for block in stage if not store.is_done(block)]):
                store.keep(block, found)
                here, missing = here + 1, missing - 1
                left = (time.monotonic() - begun) / here * missing / 60
                say(f"{block.key}: done; round {rounds[-1] + 1} of {tier.rounds}, about {left:.0f} minutes left in it")
    return store.rows(known)
