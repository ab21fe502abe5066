"""What the wheel brings."""

import ast
import importlib.metadata
import importlib.resources
import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import zipline_sdk
from zipline_sdk import _native

ROOT = Path(__file__).resolve().parents[2]


def test_the_programs_stand_beside_python():
    for program in ("zipline", "zipline-queue-proxy"):
        assert (Path(sys.executable).parent / program).is_file()
    said = subprocess.run(
        [Path(sys.executable).parent / "zipline", "--version"], capture_output=True, text=True, check=True
    )
    assert zipline_sdk.__version__ in said.stdout


def test_there_is_one_version():
    workspace = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    assert workspace == zipline_sdk.__version__ == importlib.metadata.version("zipline-sdk")


def test_it_is_typed():
    files = importlib.resources.files(zipline_sdk)
    assert files.joinpath("py.typed").is_file() and files.joinpath("_native.pyi").is_file()


def test_the_stub_says_what_the_extension_has():
    stub = ast.parse((ROOT / "python" / "zipline_sdk" / "_native.pyi").read_text())
    said = {node.name: node for node in stub.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    there = {name: member for name, member in vars(_native).items() if not name.startswith("__")}
    assert set(said) == set(there)
    for name, member in there.items():
        if inspect.isclass(member):
            written = {node.name for node in said[name].body if isinstance(node, ast.FunctionDef)}
            # Python 3.11 has the buffer protocol without a method for it, and every class has these.
            written -= {"__buffer__", "__new__", "__init__"}
            assert written == {key for key in vars(member) if key not in vars(object)} - {"__module__"}


def test_what_is_exported_is_there_and_documented():
    for name in zipline_sdk.__all__:
        member = getattr(zipline_sdk, name)
        assert isinstance(member, str) or inspect.getdoc(member)
