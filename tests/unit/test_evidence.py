"""The experiments' plan and statistics; the experiments themselves run from the command line."""

from __future__ import annotations

import json
import re
from dataclasses import asdict

import pytest

from bench import evidence_jobs, evidence_tables
from miniworld.laboratory.judging import Judgement
from miniworld.world.instances import CHOOSING, REPORTING


def test_reported_things_and_seeds_are_never_chosen_on():
    things, trained, painted = ({True: set(), False: set()} for _ in range(3))
    for name, jobs in evidence_jobs.EXPERIMENTS.items():
        choosing = name == "choose" or name.endswith("sweep")
        for job in jobs():
            things[choosing] |= {job.instance, *([job.other] if job.two_own else [])}
            painted[choosing] |= set(range(job.seed, job.seed + job.count))
            if job.settings:
                trained[choosing].add(job.settings["seed"])
    assert things == {True: {thing.name for thing in CHOOSING}, False: {thing.name for thing in REPORTING}}
    assert trained[True].isdisjoint(trained[False]) and painted[True].isdisjoint(painted[False])


@pytest.mark.parametrize("method", evidence_jobs.INVERSION_SEEDS)
@pytest.mark.parametrize("jobs", [evidence_jobs.method_jobs, evidence_jobs.two_own_jobs])
def test_every_cell_sees_the_same_pairs_and_seeds(method, jobs):
    cells = {}
    for job in jobs(method):
        cells.setdefault(job.cell, []).append((job.instance, job.other, job.seed, job.count))
    with_nouns = method == "textual inversion" and jobs is evidence_jobs.method_jobs
    assert len(cells) == (5 if with_nouns else 4)
    assert len(set(map(tuple, cells.values()))) == 1
    assert sum(count for *_, count in cells["+ both"]) >= 100


def test_names_tell_what_is_learned_apart():
    names, learned = set(), set()
    for jobs in evidence_jobs.EXPERIMENTS.values():
        for job in jobs():
            learned.add(json.dumps([job.method, job.instance, job.settings, job.masked]))
            names.add(evidence_jobs.concept_name(job))
    assert len(names) == len(learned)
    assert all(re.fullmatch("[A-Za-z0-9_-]{1,40}", name) for name in names)
    parts = [evidence_jobs.part_of(evidence_jobs.sweep_jobs(), part, 2) for part in (1, 2)]
    assert {evidence_jobs.concept_name(job) for job in parts[0]}.isdisjoint(
        evidence_jobs.concept_name(job) for job in parts[1]
    )


def test_table_counts_only_what_can_be_counted(tmp_path):
    job = next(evidence_jobs.method_jobs("DreamBooth"))
    rows = [Judgement(0.9, 0.8, 0.2, 0.5), Judgement(0.1, 0.9, 0.4, None)]
    file = tmp_path / "ablation.jsonl"
    file.write_text(json.dumps({"key": job.key, "job": asdict(job), "rows": [asdict(row) for row in rows]}) + "\n")
    cells = [cell.strip() for cell in evidence_tables.table(file).splitlines()[2].split("|")[1:-1]]
    assert cells[:2] == [job.cell, "2"]
    assert [cell.split()[0] for cell in cells[2:]] == ["1.00", "0.50", "0.50", "0.75", "0.30", "0.50"]
    assert cells[-1].endswith("(1)")


def test_differences_are_between_the_same_pictures(tmp_path):
    files = []
    for boxes, present in (("drawn", (True, True, False)), ("predicted", (True, False, False))):
        rows = []
        for seed, there in enumerate(present):
            job = {"cell": "+ both", "instance": "my-cat", "other": "boat", "seed": seed, "boxes": boxes}
            judged = Judgement(0.9, 0.9 if there else 0.1, 0, None)
            rows.append(json.dumps({"job": {**job, "settings": {"seed": 0}}, "rows": [asdict(judged)]}))
        files.append(tmp_path / f"{boxes}.jsonl")
        # The order in which jobs were done does not matter.
        files[-1].write_text("\n".join(rows[::-1] if boxes == "drawn" else rows) + "\n")
    assert evidence_tables.paired_differences(files[1], files[0]) == "+ both: -0.33 [-0.33, -0.33], n = 3"


@pytest.mark.parametrize(("row", "there"), [(Judgement(0.9, None, 0, 0), True), (Judgement(0.9, 0.2, 0, 0), False)])
def test_a_thing_alone_needs_no_neighbour(row, there):
    assert row.both is there
