"""examples/scatter-gather, with an engine and without, as its README says."""

import json
import subprocess
import sys
from pathlib import Path

import engine as engines
import pytest
from conftest import PROGRAMS, ROOT

EXAMPLE = ROOT / "examples" / "scatter-gather"
PIXELS = 2160 * 3840


def test_without_an_engine():
    command = [sys.executable, "driver.py", "--local", "--parts", "3"]
    done = subprocess.run(command, cwd=EXAMPLE, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"pixels": PIXELS, "right": True, "transport": "local"}


@pytest.mark.usefixtures("engine")
def test_with_an_engine(tmp_path):
    # `python3` of the services is the one of these tests, by the PATH that the fixture set.
    with engines.Engine(PROGRAMS / "zipline", [EXAMPLE / "services.yaml"], log=tmp_path / "log") as running:
        running.wait_until_ready()
        done = running.command("run", "--", sys.executable, str(EXAMPLE / "driver.py"), timeout=120)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {"pixels": PIXELS, "right": True, "transport": "socket"}


def test_the_readme_says_what_is_printed():
    assert f'{{"pixels": {PIXELS}, "right": true, "transport": "socket"}}' in (EXAMPLE / "README.md").read_text()
    assert Path(EXAMPLE / "services.yaml").is_file()
