"""What the demo makes of what it measured: comparisons, sums, verdicts and tables."""

MODES = {"on": "deferred", "off": "inline"}


def compare(answered, truth):
    """Compares labels frame by frame."""
    differences = [
        {"frame": number, "expected": expected, "answered": answered[number] if number < len(answered) else None}
        for number, expected in enumerate(truth)
        if number >= len(answered) or answered[number] != expected
    ]
    surplus = max(0, len(answered) - len(truth))
    return {
        "right": len(truth) - len(differences),
        "wrong": len(differences) + surplus,
        "differences": differences[:10],
    }


def edges(queue_proxies):
    """Adds up what each service sent to each other one, by kind and way."""
    sums = {}
    for status in queue_proxies:
        for row in status["transfers"]["edges"]:
            if row["direction"] != "sent" or row["count"] == 0:
                continue
            way = "inline" if row["way"] == "inline" else "deferred"
            receiver = row["peer_service"].removesuffix(".default") or "its caller"
            key = (status["service"], receiver, row["kind"], way, row["reason"])
            total = sums.setdefault(key, [0, 0, 0.0])
            total[0] += row["count"]
            total[1] += row["bytes"]
            total[2] += row["seconds"]
    names = ("from", "to", "kind", "way", "reason")
    return [
        dict(zip(names, key), payloads=payloads, bytes=size, seconds=round(seconds, 4))
        for key, (payloads, size, seconds) in sorted(sums.items(), key=lambda item: (item[0][2], -item[1][1]))
    ]


def instances(queue_proxies):
    """The most that each instance's queue-proxy held."""
    return [
        {"service": status["service"], "instance": status["instance"], "peak_buffer_bytes": status["held"]["peak_bytes"]}
        for status in sorted(queue_proxies, key=lambda status: (status["service"], status["instance"]))
    ]


def large_through_gateway(run, threshold_bytes):
    """How many payloads at or above the threshold the gateway saw, by the senders' word and by the gateway's own.

    Inline payloads that are not called small count, if at least one of them can be large. And whatever the senders
    say: the gateway's counters leave room only for what was small.
    """
    inline = [edge for edge in run["edges"] if edge["way"] == "inline"]
    large = [edge for edge in inline if edge["reason"] != "below-threshold" and edge["bytes"] >= threshold_bytes]
    by_senders = sum(edge["payloads"] for edge in large)
    explained = sum(edge["bytes"] for edge in inline)
    references = 1024 * sum(edge["payloads"] for edge in run["edges"] if edge["way"] == "deferred")
    unexplained = max(run["gateway"].values()) - explained - references
    return by_senders + (unexplained // threshold_bytes if unexplained > 0 else 0)


def faults(result):
    """Everything that makes the demo fail, in words."""
    found = []
    for run in result["runs"]:
        name = MODES[run["mode"]]
        if run["labels"]["wrong"]:
            found.append(f"{name}: {run['labels']['wrong']} frames were labelled wrong: {run['labels']['differences']}")
        if run["mode"] == "on" and run["large_through_gateway"]:
            found.append(f"{name}: {run['large_through_gateway']} large payloads crossed the gateway")
        if run["mode"] == "on" and not any(edge["way"] == "deferred" for edge in run["edges"]):
            found.append(f"{name}: nothing was deferred")
    return found


def size(count):
    """Bytes for people."""
    for unit, factor in (("MB", 1_000_000), ("KB", 1_000)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"


def show(result):
    """Prints the tables."""
    for run in result["runs"]:
        labels = run["labels"]
        print(f"\n{MODES[run['mode']]}: {result['frames']} frames in {run['seconds']:.2f} s; "
              f"labels of {labels['right']} frames right, of {labels['wrong']} wrong")
        rows = [("edge", "kind", "payloads", "bytes", "way", "time each")]
        for edge in run["edges"]:
            way = edge["way"] + (f" ({edge['reason']})" if edge["reason"] else "")
            each = f"{1000 * edge['seconds'] / edge['payloads']:.1f} ms"
            rows.append((f"{edge['from']} -> {edge['to']}", edge["kind"], str(edge["payloads"]), size(edge["bytes"]), way, each))
        table(rows)
        gateway = run["gateway"]
        print(f"  crossed the gateway: {size(gateway['bytes_in'])} to functions, {size(gateway['bytes_out'])} back; "
              f"payloads at or above {size(result['threshold_bytes'])} among it: {run['large_through_gateway']}")
        peaks = ", ".join(f"{entry['instance']} {size(entry['peak_buffer_bytes'])}" for entry in run["instances"])
        print(f"  most memory held: {peaks}")


    print("\n  time each: from the first byte until the receiver acknowledged it (deferred; waiting for a free instance is part of it)"
          "\n  or until the gateway took it (inline)")


def table(rows):
    """Prints rows in columns as wide as their widest cell."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
