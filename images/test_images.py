"""The OCI archives that `make images` made: what is in them, and whether the binaries run as a cluster runs them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ARCHIVES = {
    name: ROOT / "build" / "images" / f"{name}.oci.tar" for name in ("zipline-queue-proxy", "zipline-controller", "zipline")
}
LIMIT_BYTES = 15_000_000


class Layout:
    """An OCI layout, read with every digest and size checked."""

    def __init__(self, path: Path) -> None:
        with tarfile.open(path) as archive:
            self.entries = archive.getmembers()
            self.files = {entry.name: archive.extractfile(entry).read() for entry in self.entries if entry.isfile()}

    def json(self, name: str) -> dict:
        return json.loads(self.files[name])

    def blob(self, descriptor: dict) -> bytes:
        algorithm, digest = descriptor["digest"].split(":")
        content = self.files[f"blobs/{algorithm}/{digest}"]
        assert hashlib.sha256(content).hexdigest() == digest
        assert len(content) == descriptor["size"]
        return content

    def index(self) -> dict:
        (descriptor,) = self.json("index.json")["manifests"]
        return json.loads(self.blob(descriptor))

    def images(self) -> dict[str, tuple[dict, dict, bytes]]:
        """Manifest, configuration and layer by platform."""
        found = {}
        for descriptor in self.index()["manifests"]:
            manifest = json.loads(self.blob(descriptor))
            config = json.loads(self.blob(manifest["config"]))
            (layer,) = manifest["layers"]
            platform = descriptor["platform"]
            assert (config["os"], config["architecture"]) == (platform["os"], platform["architecture"])
            found[f"{platform['os']}/{platform['architecture']}"] = (manifest, config, gzip.decompress(self.blob(layer)))
        return found


@pytest.fixture(params=ARCHIVES, scope="module")
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def layout(name: str) -> Layout:
    return Layout(ARCHIVES[name])


def test_layout_is_complete(layout: Layout) -> None:
    assert layout.json("oci-layout") == {"imageLayoutVersion": "1.0.0"}
    referred = {layout.json("index.json")["manifests"][0]["digest"]}
    for descriptor in layout.index()["manifests"]:
        manifest = json.loads(layout.blob(descriptor))
        referred |= {descriptor["digest"], manifest["config"]["digest"], manifest["layers"][0]["digest"]}
    blobs = {name.replace("blobs/sha256/", "sha256:") for name in layout.files if name.startswith("blobs/")}
    assert blobs == referred
    names = [entry.name for entry in layout.entries]
    assert names == sorted(names) and len({entry.mtime for entry in layout.entries}) == 1


def test_image_is_one_binary(name: str, layout: Layout) -> None:
    for manifest, config, layer in layout.images().values():
        assert config["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(layer).hexdigest()]
        with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
            (entry,) = archive.getmembers()
        assert (entry.name, entry.mode, entry.uid, entry.gid) == (name, 0o555, 0, 0)
        assert entry.size < LIMIT_BYTES
        settings = config["config"]
        assert settings["Entrypoint"] == [f"/{name}"] and "Cmd" not in settings
        user, group = map(int, settings["User"].split(":"))
        assert user > 0 and group > 0
        assert settings["Labels"]["org.opencontainers.image.title"] == name
        assert manifest["annotations"] == settings["Labels"]


def test_the_same_inputs_give_the_same_bytes(name: str, tmp_path: Path) -> None:
    binary = tmp_path / name
    binary.write_bytes(elf(62))
    archives = []
    for folder in ("a", "b"):
        build(tmp_path / folder, f"amd64={binary}")
        archives.append((tmp_path / folder / f"{name}.oci.tar").read_bytes())
    assert archives[0] == archives[1]


def test_platforms_join_in_one_index(tmp_path: Path) -> None:
    paths = {}
    for architecture, machine in (("arm64", 183), ("amd64", 62)):
        paths[architecture] = tmp_path / architecture / "tool"
        paths[architecture].parent.mkdir()
        paths[architecture].write_bytes(elf(machine))
    build(tmp_path, *(f"{architecture}={path}" for architecture, path in paths.items()))
    assert list(Layout(tmp_path / "tool.oci.tar").images()) == ["linux/amd64", "linux/arm64"]


def test_what_cannot_run_in_an_empty_image_is_refused(tmp_path: Path) -> None:
    for content, word in ((elf(62, interpreter=True), "dynamically"), (elf(183), "arm64"), (b"#!/bin/sh\n", "ELF")):
        (tmp_path / "tool").write_bytes(content)
        with pytest.raises(subprocess.CalledProcessError) as error:
            build(tmp_path, f"amd64={tmp_path / 'tool'}")
        assert word in error.value.stderr


def test_skopeo_reads_it(name: str, tmp_path: Path) -> None:
    source = f"oci-archive:{ARCHIVES[name]}"
    inspected = json.loads(run("skopeo", "inspect", source))
    assert inspected["Labels"]["org.opencontainers.image.title"] == name
    # As a registry gets it: the index with every platform.
    run("skopeo", "--tmpdir", str(tmp_path), "copy", "--quiet", "--all", source, f"dir:{tmp_path / 'copied'}")
    assert "index" in json.loads((tmp_path / "copied" / "manifest.json").read_text())["mediaType"]


def test_umoci_unpacks_it(name: str, layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "layout").mkdir()
    run("tar", "--extract", "--file", str(ARCHIVES[name]), "--directory", str(tmp_path / "layout"))
    tag = layout.json("index.json")["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"]
    run("umoci", "unpack", "--rootless", "--image", f"{tmp_path / 'layout'}:{tag}", str(tmp_path / "bundle"))
    assert [path.name for path in (tmp_path / "bundle" / "rootfs").iterdir()] == [name]


def test_queue_proxy_runs_confined(tmp_path: Path) -> None:
    """Read-only root, any UID, no capability, no new privileges, no shell: probes, requests, names."""
    seen = confined("zipline-queue-proxy", tmp_path)
    assert seen["probe"] == [200, "queue"], seen["log"]
    assert seen["status"] == {"Uid": "123456", "Gid": "123456", "CapEff": "0" * 16, "NoNewPrivs": "1"}
    assert seen["root"] == {"files": ["dev", "etc", "zipline-queue-proxy"], "read_only": True}
    assert seen["request"] == [200, "hello from the function"]
    # By a name of the cluster's DNS, through a search domain, with resolv.conf as Kubernetes writes it.
    assert seen["by_name"] == [200, "hello from the function"]
    assert "hello.default.svc.cluster.local." in seen["asked"]
    assert seen["exit"] == 0, seen["log"]


def test_controller_says_what_it_lacks(tmp_path: Path) -> None:
    seen = confined("zipline-controller", tmp_path)
    assert seen["exit"] not in (0, None) and "/etc/zipline" in seen["log"], seen


def confined(name: str, folder: Path) -> dict:
    """Runs a binary as `confined.py` says, in namespaces of its own; what was seen there."""
    (_, _, layer) = Layout(ARCHIVES[name]).images()["linux/amd64"]
    root = folder / "root"
    root.mkdir()
    (folder / "layer.tar").write_bytes(layer)
    run("tar", "--extract", "--file", str(folder / "layer.tar"), "--directory", str(root))
    script = Path(__file__).with_name("confined.py")
    command = ["unshare", "--net", "--mount", sys.executable, str(script), name, str(root)]
    return json.loads(run(*command))


def build(output: Path, *binaries: str) -> None:
    arguments = [argument for binary in binaries for argument in ("--binary", binary)]
    run(sys.executable, str(ROOT / "images" / "build.py"), *arguments, "--version", "1.2.3", "--output", str(output))


def elf(machine: int, interpreter: bool = False) -> bytes:
    """The least of an ELF file that says what it is."""
    head = bytearray(64)
    head[:6] = b"\x7fELF\x02\x01"
    head[18:20] = machine.to_bytes(2, "little")
    head[32:40] = (64).to_bytes(8, "little")
    head[54:58] = (56).to_bytes(2, "little") + (1).to_bytes(2, "little")
    return bytes(head) + (3 if interpreter else 1).to_bytes(4, "little") + bytes(52)


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    return done.stdout
