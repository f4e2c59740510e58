# SPDX-License-Identifier: Apache-2.0
"""The suite's fixtures, for each of our own drivers in turn."""

from collections.abc import Callable, Iterator

import pytest

pytest.register_assert_rewrite("hostagent.drivers.contract.promises")

from hostagent.drivers.contract.factory import ContractFactory  # noqa: E402
from hostagent.drivers.contract.plugin import (  # noqa: E402, F401 - fixtures and options of the suite
    bench,
    found_driver,
    host,
    pytest_addoption,
    session,
)
from tests.conftest import missing  # noqa: E402
from tests.lab.hypervisor import have_hypervisor  # noqa: E402
from tests.lab.plain_qemu import have_qemu  # noqa: E402


def _libvirt() -> ContractFactory:
    if not have_hypervisor():
        missing("libvirt with QEMU")
    from tests.contract.libvirt_guests import LibvirtFactory  # noqa: PLC0415 - needs libvirt

    return LibvirtFactory()


def _qmp() -> ContractFactory:
    if not have_qemu():
        missing("QEMU and gcc")
    from tests.contract.qmp_guests import QmpFactory  # noqa: PLC0415 - as above

    return QmpFactory()


FACTORIES: dict[str, Callable[[], ContractFactory]] = {"libvirt": _libvirt, "qmp": _qmp}


@pytest.fixture(scope="session", params=sorted(FACTORIES))
def driver_name(request: pytest.FixtureRequest) -> str:
    """Each of our own drivers."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def guest_factory(driver_name: str) -> Iterator[ContractFactory]:
    """The guests of one driver."""
    factory = FACTORIES[driver_name]()
    yield factory
    factory.close()
