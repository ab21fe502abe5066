"""Fixtures for tests of functions that use Zipline. They run without an engine.

def test_thumbnail(zipline_client):
    reference = zipline_client.put(b"...")
    assert thumbnail(zipline_client, str(reference)) == ...
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ._client import Client
from ._local import LocalPlatform


@pytest.fixture
def zipline_platform() -> LocalPlatform:
    """Stands in for engine and queue-proxies: `zipline_platform.functions["name"] = function` is what invokes reach."""
    return LocalPlatform()


@pytest.fixture
def zipline_client(zipline_platform: LocalPlatform) -> Iterator[Client]:
    """A client whose payloads stay in the test's process; they are gone when the test ends."""
    with Client.local(platform=zipline_platform) as client:
        yield client
