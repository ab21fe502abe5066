"""The demo's verdict: it must fail when a label is wrong, when a large payload crossed the gateway, or when nothing moved."""

import pytest

import report

THRESHOLD = 131_072


def row(**changes):
    usual = {"direction": "sent", "kind": "request", "peer_service": "recog.default", "way": "network", "reason": ""}
    return {**usual, "count": 6, "bytes": 4_800_000, "seconds": 0.06, **changes}


def status(*rows):
    return {"service": "decoder", "instance": "decoder-1", "held": {"peak_bytes": 9}, "transfers": {"edges": list(rows)}}


def a_run(mode="on", gateway=5_000, rows=None, labels=None):
    rows = [row()] if rows is None else rows
    done = {
        "mode": mode,
        "labels": labels or report.compare([["a"]], [["a"]]),
        "edges": report.edges([status(*rows)]),
        "gateway": {"bytes_in": gateway, "bytes_out": 0},
    }
    done["large_through_gateway"] = report.large_through_gateway(done, THRESHOLD)
    return done


def faults(*runs):
    return report.faults({"runs": runs})


def test_a_good_run_has_no_fault():
    assert faults(a_run(), a_run(mode="off", gateway=5_000_000, rows=[row(way="inline", reason="mode")])) == []


def test_a_wrong_label_is_a_fault():
    labels = report.compare([["red circle at 1,1"]], [["red square at 1,1"]])
    assert "wrong" in faults(a_run(labels=labels))[0]


@pytest.mark.parametrize("answered", [[], [["a"]], [["a"], ["b"], ["c"]]])
def test_missing_and_surplus_frames_are_wrong(answered):
    assert report.compare(answered, [["a"], ["b"]])["wrong"] > 0


@pytest.mark.parametrize("reason", ["unknown-receiver", "buffer-full", "mode"])
def test_a_large_inline_payload_is_a_fault_when_deferred(reason):
    rows = [row(), row(way="inline", reason=reason, count=1, bytes=800_000)]
    assert "crossed the gateway" in faults(a_run(rows=rows))[0]


def test_small_inline_payloads_are_none():
    rows = [row(), row(way="inline", reason="below-threshold", count=6, bytes=600_000)]
    assert faults(a_run(rows=rows, gateway=610_000)) == []


def test_what_went_inline_for_another_reason_may_be_small():
    rows = [row(), row(way="inline", reason="unknown-receiver", kind="response", count=1, bytes=6_000)]
    assert faults(a_run(rows=rows)) == []


def test_the_gateways_own_counters_are_believed():
    assert "crossed the gateway" in faults(a_run(gateway=900_000))[0]


def test_a_run_that_deferred_nothing_is_a_fault():
    assert faults(a_run(rows=[])) == ["deferred: nothing was deferred"]


def test_edges_of_several_instances_are_added_up():
    assert report.edges([status(row()), status(row())])[0]["payloads"] == 12
