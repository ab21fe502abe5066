"""Every Python example of docs/python.md runs, as one program from top to bottom, under a queue-proxy of an engine."""

import re
from pathlib import Path

from zipline_sdk import errors

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "python.md"


def examples():
    """Line numbers and code."""
    text = GUIDE.read_text()
    for found in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield text.count("\n", 0, found.start(1)) + 1, found[1]


def test_the_guides_examples_run(sender_environment, monkeypatch):
    for name, value in sender_environment.items():
        monkeypatch.setenv(name, value)
    code = list(examples())
    assert len(code) >= 11
    names = {"__name__": "guide"}
    for line, example in code:
        # So that a failure names the guide's line.
        exec(compile("\n" * (line - 1) + example, str(GUIDE), "exec"), names)


def test_the_guide_names_every_error_and_its_code():
    text = GUIDE.read_text()
    for code, kind in errors.BY_CODE.items():
        assert f"| `{kind.__name__}` | `{code}` |" in text
    for kind in (errors.NotConnectedError, errors.StatusError, errors.FormatError, errors.UntrustedError):
        assert f"`{kind.__name__}`" in text
