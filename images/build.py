#!/usr/bin/env python3
"""Packs one static binary per image into an OCI archive. No daemon, no base image, nothing but Python's library.

    images/build.py --binary amd64=path/to/zipline-queue-proxy --version 0.1.0 --output build/images

An image is one layer with one file. The archive holds an image index, so that further platforms of the same binary, built
by the same recipe on their machines, join it by another --binary. The same inputs give the same bytes: times come from
--epoch, entries are sorted, owners are 0. (The compressed layer depends on the zlib in use; its `diff_id` does not.)
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

# 65532 is what other minimal images use; any other UID works as well.
USER = "65532:65532"
LIMIT_BYTES = 15_000_000
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
MACHINES = {62: "amd64", 183: "arm64"}
PT_INTERP = 3


class NotAnImage(Exception):
    """The input cannot become an image; says what to do."""


@dataclass(frozen=True)
class Binary:
    """A static binary for one platform."""

    architecture: str
    path: Path
    content: bytes

    @classmethod
    def read(cls, text: str) -> "Binary":
        architecture, _, path = text.partition("=")
        if architecture not in MACHINES.values() or not path:
            raise NotAnImage(f"--binary {text}: write amd64=PATH or arm64=PATH")
        binary = cls(architecture, Path(path), Path(path).read_bytes())
        binary.check()
        return binary

    def check(self) -> None:
        """Nothing is there to load a dynamic binary in an empty image."""
        head = self.content
        if head[:6] != b"\x7fELF\x02\x01":
            raise NotAnImage(f"{self.path} is not a 64-bit little-endian ELF file")
        machine = MACHINES.get(int.from_bytes(head[18:20], "little"))
        if machine != self.architecture:
            raise NotAnImage(f"{self.path} is for {machine}, not for {self.architecture}")
        offset = int.from_bytes(head[32:40], "little")
        size, count = (int.from_bytes(head[at : at + 2], "little") for at in (54, 56))
        kinds = [int.from_bytes(head[offset + size * n :][:4], "little") for n in range(count)]
        if PT_INTERP in kinds:
            raise NotAnImage(f"{self.path} is linked dynamically: build it with -C target-feature=+crt-static")


class Blobs:
    """Content by its digest, as an OCI layout keeps it."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}

    def add(self, kind: str, content: bytes, **more: object) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        self.content[digest] = content
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content), **more}

    def add_json(self, kind: str, value: object, **more: object) -> dict[str, object]:
        return self.add(kind, encode(value), **more)


def encode(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def tar(files: dict[str, tuple[int, bytes]], epoch: int) -> bytes:
    """Files by name with their modes; sorted, owned by 0, folders before what is in them."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        folders = {str(parent) for name in files for parent in Path(name).parents} - {"."}
        for name in sorted(folders | set(files)):
            entry = tarfile.TarInfo(name)
            entry.mtime = epoch
            if name in folders:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(entry)
                continue
            mode, content = files[name]
            entry.mode, entry.size = mode, len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def time_text(epoch: int) -> str:
    from datetime import datetime, timezone

    return datetime.fromtimestamp(epoch, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def image(name: str, binaries: list[Binary], labels: dict[str, str], epoch: int) -> bytes:
    """The OCI archive of one image."""
    blobs, manifests = Blobs(), []
    for binary in sorted(binaries, key=lambda binary: binary.architecture):
        layer = tar({name: (0o555, binary.content)}, epoch)
        packed = blobs.add(LAYER, gzip.compress(layer, 9, mtime=0))
        config = {
            "created": time_text(epoch),
            "architecture": binary.architecture,
            "os": "linux",
            "config": {"User": USER, "Entrypoint": [f"/{name}"], "WorkingDir": "/", "Labels": labels},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
            "history": [{"created": time_text(epoch), "created_by": "images/build.py"}],
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": blobs.add_json(CONFIG, config),
            "layers": [packed],
            "annotations": labels,
        }
        platform = {"architecture": binary.architecture, "os": "linux"}
        manifests.append(blobs.add_json(MANIFEST, manifest, platform=platform))
        size = packed["size"]
        print(f"{name} {binary.architecture}: binary {len(binary.content):,} bytes, layer {size:,} bytes")
        if len(binary.content) > LIMIT_BYTES:
            raise NotAnImage(f"{binary.path} has {len(binary.content):,} bytes, the limit is {LIMIT_BYTES:,}")
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests, "annotations": labels}
    tag = {"org.opencontainers.image.ref.name": labels["org.opencontainers.image.version"]}
    top = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [blobs.add_json(INDEX, index, annotations=tag)],
    }
    files = {"oci-layout": (0o644, encode({"imageLayoutVersion": "1.0.0"})), "index.json": (0o644, encode(top))}
    files |= {f"blobs/sha256/{digest}": (0o644, content) for digest, content in blobs.content.items()}
    return tar(files, epoch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", action="append", required=True, help="ARCHITECTURE=PATH; the same file name for each")
    parser.add_argument("--version", required=True, help="label and tag")
    parser.add_argument("--revision", default="", help="commit, for the label")
    parser.add_argument("--epoch", type=int, default=0, help="seconds since 1970 for all times")
    parser.add_argument("--output", type=Path, required=True, help="folder of the archive")
    args = parser.parse_args()
    try:
        binaries = [Binary.read(text) for text in args.binary]
        names = {binary.path.name for binary in binaries}
        if len(names) != 1 or len({binary.architecture for binary in binaries}) != len(binaries):
            raise NotAnImage("one image holds one binary, once per architecture")
        name = names.pop()
        labels = {
            "org.opencontainers.image.title": name,
            "org.opencontainers.image.description": f"{name} of Zipline, nothing else",
            "org.opencontainers.image.licenses": "Apache-2.0",
            "org.opencontainers.image.version": args.version,
        }
        if args.revision:
            labels["org.opencontainers.image.revision"] = args.revision
        archive = image(name, binaries, labels, args.epoch)
    except (NotAnImage, OSError) as error:
        parser.exit(1, f"images: {error}\n")
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / f"{name}.oci.tar"
    path.write_bytes(archive)
    print(f"{path}: {len(archive):,} bytes, sha256:{hashlib.sha256(archive).hexdigest()}")


if __name__ == "__main__":
    main()
