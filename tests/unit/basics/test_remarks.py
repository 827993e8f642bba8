"""Remarks: said once, by the node that runs, in the log everywhere."""

from __future__ import annotations

import pytest

from compinv_core.basics.errors import Remark, Remarks, remark, remarks_here, remarks_to


def test_the_running_node_says_each_remark_once(caplog: pytest.LogCaptureFixture) -> None:
    told: list[list[Remark]] = []
    node = Remarks(lambda said: told.append(list(said)))
    with remarks_to(node):
        remark("The mask is\n inverted.")
        remark("The mask is inverted.")
        remarks_here().say("Two pictures were given.", "note")
    assert node.said == [("The mask is inverted.", "warning"), ("Two pictures were given.", "note")]
    assert [len(said) for said in told] == [1, 2]
    assert [record.getMessage() for record in caplog.records] == ["The mask is inverted."]


def test_outside_a_node_a_remark_is_logged_alone(caplog: pytest.LogCaptureFixture) -> None:
    with remarks_to(node := Remarks()):
        pass
    remark("Nobody runs.")
    assert node.said == [] and "Nobody runs." in caplog.text
    assert remarks_here().said == []


def test_what_is_taken_back_leaves_the_same_list() -> None:
    node = Remarks()
    listed, late = node.said, node.say("Late.")
    node.say("Early.")
    node.take_back([late])
    assert node.said is listed and listed == [("Early.", "warning")]
