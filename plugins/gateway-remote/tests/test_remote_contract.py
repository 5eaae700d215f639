"""The contract of every model, kept by a remote one."""

from collections.abc import Iterator

import pytest
from gateway_remote.service import RemoteModel
from remote_case import row

from gateway.testing import LoopbackServer
from gateway.testing.contract import ModelServiceContract


class TestRemoteModel(ModelServiceContract):
    @pytest.fixture
    def service(self) -> Iterator[RemoteModel]:
        with LoopbackServer() as server:
            yield RemoteModel(row(server.url, modalities=["text"]))
