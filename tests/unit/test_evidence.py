"""The experiments' plan and statistics; the experiments themselves run from the command line."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from bench import evidence
from miniworld.instances import CHOOSING, REPORTING
from miniworld.judging import Judgement


def test_reported_things_are_never_chosen_on():
    choosing, reporting = ({thing.name for thing in things} for things in (CHOOSING, REPORTING))
    assert {job.instance for job in (*evidence.choose_jobs(), *evidence.sweep_jobs())} == choosing
    assert {job.instance for job in evidence.ablation_jobs()} == reporting


def test_every_cell_of_the_ablation_sees_the_same_pairs_and_seeds():
    cells = {}
    for job in evidence.ablation_jobs():
        cells.setdefault(job.cell, []).append((job.instance, job.other, job.seed, job.count))
    assert len(cells) == 5
    assert len(set(map(tuple, cells.values()))) == 1
    assert sum(count for *_, count in cells["+ both"]) >= 100


def test_names_tell_learned_words_apart():
    learned = {json.dumps([job.instance, job.inversion, job.masked]) for job in evidence.sweep_jobs()}
    names = {evidence.concept_name(job) for job in evidence.sweep_jobs()}
    assert len(names) == len(learned)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_") for name in names)


def test_interval_draws_whole_clusters():
    assert evidence.interval([[1.0, 1.0], [1.0]]) == (1.0, 1.0)
    alike = evidence.interval([[0.0] * 50, [1.0] * 50])
    assert alike == (0.0, 1.0)
    low, high = evidence.interval([[0.0], [1.0]] * 50)
    assert 0.35 < low < 0.45 < 0.55 < high < 0.65


def test_table_counts_only_what_can_be_counted(tmp_path):
    job = next(evidence.ablation_jobs())
    rows = [Judgement(0.9, 0.8, 0.2, 0.5), Judgement(0.1, 0.9, 0.4, None)]
    file = tmp_path / "ablation.jsonl"
    file.write_text(json.dumps({"key": job.key, "job": asdict(job), "rows": [asdict(row) for row in rows]}) + "\n")
    cells = [cell.strip() for cell in evidence.table(file).splitlines()[2].split("|")[1:-1]]
    assert cells[:2] == [job.cell, "2"]
    assert [cell.split()[0] for cell in cells[2:]] == ["1.000", "0.500", "0.500", "0.300", "0.500"]
    assert cells[-1].endswith("(1)")


@pytest.mark.parametrize(("row", "there"), [(Judgement(0.9, None, 0, 0), True), (Judgement(0.9, 0.2, 0, 0), False)])
def test_a_thing_alone_needs_no_neighbour(row, there):
    assert row.both is there
