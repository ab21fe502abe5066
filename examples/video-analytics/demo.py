"""Runs the video workflow on Zipline, deferred and inline, checks every label, and shows what moved.

Exit status: 0 all well; 1 a label is wrong, or a payload above the threshold crossed the gateway though it should have been
deferred; 2 usage; 3 the workflow could not be run.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import requests

import report
import scene

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import engine  # noqa: E402

BUILD = ROOT / "build" / "video-analytics"


def run(binary, mode, frames, truth):
    """One run of the workflow on an engine of its own; returns what the README calls a run."""
    with engine.Engine(binary, [HERE / "services.yaml"], mode=mode, log=BUILD / f"engine-{mode}.log") as zipline:
        zipline.wait_until_ready()
        before = zipline.gateway_bytes()
        started = time.monotonic()
        answer = requests.post(
            f"http://{zipline.gateway}/",
            params={"frames": frames},
            headers={"Host": "streaming.default.localhost"},
            timeout=300,
        )
        seconds = time.monotonic() - started
        if answer.status_code != 200:
            raise engine.EngineError(f"the workflow answered {answer.status_code}: {answer.text.strip()[:500]}")
        after = zipline.gateway_bytes()
        instances = zipline.queue_proxies()

    edges = report.edges(instances)
    return {
        "mode": mode,
        "seconds": round(seconds, 4),
        "labels": report.compare(answer.json()["frames"], truth),
        "edges": edges,
        "instances": report.instances(instances),
        "gateway": {key: after[key] - before[key] for key in after},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--zipline", default=ROOT / "target" / "release" / "zipline", type=Path, help="the binary to run")
    parser.add_argument("--seed", type=int, default=7, help="of the scene")
    parser.add_argument("--frames", type=int, default=scene.FRAMES, help=f"to recognise, 1 to {scene.FRAMES}")
    parser.add_argument("--json", action="store_true", help="print one JSON object (see README.md) instead of tables")
    arguments = parser.parse_args()
    if not 1 <= arguments.frames <= scene.FRAMES:
        parser.error(f"--frames must be from 1 to {scene.FRAMES}")

    progress = sys.stderr if arguments.json else sys.stdout
    BUILD.mkdir(parents=True, exist_ok=True)
    print(f"encoding the scene of seed {arguments.seed}", file=progress, flush=True)
    scene.write(arguments.seed, BUILD / "fragment.mp4", BUILD / "truth.json")
    truth = json.loads((BUILD / "truth.json").read_text())[: arguments.frames]

    result = {
        "schema": "zipline-demo/1",
        "seed": arguments.seed,
        "frames": arguments.frames,
        "fragment_bytes": (BUILD / "fragment.mp4").stat().st_size,
        "threshold_bytes": engine.THRESHOLD_BYTES,
        "runs": [],
    }
    try:
        for mode in ("on", "off"):
            print(f"running the workflow, {report.MODES[mode]}", file=progress, flush=True)
            done = run(arguments.zipline, mode, arguments.frames, truth)
            done["large_through_gateway"] = report.large_through_gateway(done, engine.THRESHOLD_BYTES)
            result["runs"].append(done)
    except (engine.EngineError, requests.RequestException) as error:
        print(f"demo: {error}\ndemo: the engine's output is in {BUILD}", file=sys.stderr)
        return 3

    faults = report.faults(result)
    result["passed"] = not faults
    if arguments.json:
        json.dump(result, sys.stdout, indent=2)
        print()
    else:
        report.show(result)
    for fault in faults:
        print(f"demo: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
