"""Builds the wheel: the extension with maturin, and beside it the programs that `zipline up` needs.

maturin packs either a library or binaries. Here cargo builds the binaries first, and they go into the wheel's data folder, whose
`scripts` an installer puts beside Python's own programs. Everything lands in the workspace's target folder, so that a checkout
that was built already is not built again.

`pip install ./python --config-settings profile=dev` takes cargo's development profile (`make test-python` does).
"""

import os
import shutil
import subprocess
from pathlib import Path

import maturin
from maturin import get_requires_for_build_editable, get_requires_for_build_wheel

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "build" / "wheel" / "zipline_sdk.data"
# Crate and binary of each program in the wheel; `zipline` finds the queue-proxy beside itself.
PROGRAMS = {"zipline-cli": "zipline", "zipline-queue-proxy": "zipline-queue-proxy"}


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    # maturin looks whether the folder is there, also when it needs nothing of it.
    DATA.mkdir(parents=True, exist_ok=True)
    return maturin.prepare_metadata_for_build_wheel(metadata_directory, config_settings)


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    profile, settings = prepare(config_settings)
    with maturin_arguments(profile):
        return maturin.build_wheel(wheel_directory, settings, metadata_directory)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    profile, settings = prepare(config_settings)
    with maturin_arguments(profile):
        return maturin.build_editable(wheel_directory, settings, metadata_directory)


prepare_metadata_for_build_editable = prepare_metadata_for_build_wheel


def build_sdist(sdist_directory, config_settings=None):
    raise SystemExit("zipline-sdk is built from a checkout of the whole repository: there is no source distribution")


def prepare(config_settings):
    """Builds the programs and lays them out; the profile, and what is left of the settings."""
    settings = dict(config_settings or {})
    profile = settings.pop("profile", None) or "release"
    if not (ROOT / "Cargo.toml").is_file():
        raise SystemExit(f"{ROOT} is not Zipline's repository: install from a checkout, as in `pip install ./python`")
    if shutil.which("cargo") is None:
        raise SystemExit("cargo is not on the PATH: install Rust (https://rustup.rs), then try again")
    packages = [word for crate in PROGRAMS for word in ("--package", crate)]
    subprocess.run(["cargo", "build", "--profile", profile, *packages, "--bins"], cwd=ROOT, check=True)
    scripts = DATA / "scripts"
    shutil.rmtree(DATA, ignore_errors=True)
    scripts.mkdir(parents=True)
    for program in PROGRAMS.values():
        built = target() / ("debug" if profile == "dev" else profile) / program
        shutil.copy2(built, scripts / program)
    return profile, settings


def target():
    """Cargo's target folder."""
    return Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")


class maturin_arguments:
    """Tells maturin the profile in the one way that its build hooks have."""

    NAME = "MATURIN_PEP517_ARGS"

    def __init__(self, profile):
        self.value = f"--profile {profile}"

    def __enter__(self):
        self.before = os.environ.get(self.NAME)
        os.environ[self.NAME] = f"{self.before or ''} {self.value}".strip()

    def __exit__(self, *_):
        if self.before is None:
            del os.environ[self.NAME]
        else:
            os.environ[self.NAME] = self.before
