# SPDX-License-Identifier: Apache-2.0
"""Libvirt's events of one connection, handed on. Callbacks run in libvirt's event thread and return at once."""

from typing import Any, Final

from hostagent.drivers.base import GuestArrival, GuestEvents

_LIFECYCLE, _REBOOT, _REMOVED, _ADDED = 0, 1, 15, 19  # VIR_DOMAIN_EVENT_ID_*
_STARTED, _SUSPENDED, _RESUMED = 2, 3, 4  # virDomainEventType
_BOOTED, _UNPAUSED = 0, 0  # virDomainEventStartedDetailType, virDomainEventResumedDetailType
_BACK_BUT_PAUSED: Final = frozenset({4, 5})  # virDomainEventSuspendedDetailType: restored, from a snapshot


class LibvirtEvents:
    """The registration of one receiver on one connection."""

    def __init__(self, connection: Any, events: GuestEvents) -> None:
        """Register for the events of all domains; raises libvirtError."""
        self.connection = connection
        self._events = events
        self._ids = [
            connection.domainEventRegisterAny(None, _ADDED, self._on_event, None),
            connection.domainEventRegisterAny(None, _REMOVED, self._on_removed, None),
            connection.domainEventRegisterAny(None, _LIFECYCLE, self._on_lifecycle, None),
            connection.domainEventRegisterAny(None, _REBOOT, self._on_reboot, None),
        ]

    def end(self) -> None:
        """Take back the registrations; raises libvirtError. An embedded libvirt keeps its one connection."""
        for each in self._ids:
            self.connection.domainEventDeregisterAny(each)

    def _on_event(self, _connection: Any, domain: Any, *_details: Any) -> None:
        """Request another look at the domain of an event."""
        self._events.changed(domain.UUIDString().lower())

    def _on_removed(self, _connection: Any, domain: Any, alias: str, *_details: Any) -> None:
        """Note that a disk left: it may be back before the next look."""
        self._events.disk_removed(domain.UUIDString().lower(), alias)

    def _on_lifecycle(self, connection: Any, domain: Any, event: int, detail: int, *_opaque: Any) -> None:
        """Note the cause of a guest's arrival or return."""
        if (how := arrival(event, detail)) is not None:
            self._events.arrived(domain.UUIDString().lower(), how)
        self._on_event(connection, domain)

    def _on_reboot(self, connection: Any, domain: Any, *_opaque: Any) -> None:
        """Note a reset: the guest starts again in the same QEMU and reads the size of each disk."""
        self._events.arrived(domain.UUIDString().lower(), GuestArrival.STARTED)
        self._on_event(connection, domain)


def arrival(event: int, detail: int) -> GuestArrival | None:
    """Return how a guest came by a lifecycle event of libvirt, None where it was there all along. Pure."""
    if event == _STARTED:
        return GuestArrival.STARTED if detail == _BOOTED else GuestArrival.CAME_BACK
    if (event == _RESUMED and detail != _UNPAUSED) or (event == _SUSPENDED and detail in _BACK_BUT_PAUSED):
        return GuestArrival.CAME_BACK
    return None
