# SPDX-License-Identifier: Apache-2.0
"""TLS for the built-in servers: certificate and key from files, which are read again on request."""

import logging
import socket
import ssl
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from cheroot.makefile import MakeFile
from cheroot.ssl import Adapter

from bridge.core.errors import ConfigError

LOG = logging.getLogger(__name__)

_ENVIRON: Final = MappingProxyType({"wsgi.url_scheme": "https", "HTTPS": "on"})
MINIMUM: Final = MappingProxyType({"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3})


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """The PEM files; without `key_file` the key is in `cert_file`. `minimum` is a key of MINIMUM."""

    cert_file: str
    key_file: str | None = None
    minimum: str = "1.2"


class TlsAdapter(Adapter):
    """The TLS adapter for cheroot. `Connection` does the handshake, without waiting."""

    def __init__(self, settings: TlsSettings, *, option: str) -> None:
        """Load the files; raises ConfigError, which names `option`, where the files cannot be used."""
        super().__init__(settings.cert_file, settings.key_file)
        self._settings = settings
        self._option = option
        self.context: ssl.SSLContext = self._load()

    def reload(self) -> None:
        """Read the files again for new connections; the old certificate stays where the files are broken."""
        try:
            self.context = self._load()
        except ConfigError as ex:
            LOG.error("the old certificate stays in use: %s", ex)  # noqa: TRY400 - the text says it all
        else:
            LOG.info("the certificate was read again from %s", self._settings.cert_file)

    def bind(self, sock: socket.socket) -> socket.socket:
        """Return the listening socket unchanged."""
        return sock

    def wrap(self, sock: socket.socket) -> tuple[ssl.SSLSocket, dict[str, str]]:
        """Wrap a connection that was accepted."""
        wrapped = self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        return wrapped, self.get_environ()

    def get_environ(self) -> dict[str, str]:
        """Return the TLS part of the WSGI environ."""
        return dict(_ENVIRON)

    def makefile(self, sock: socket.socket, mode: str = "r", bufsize: int = -1) -> Any:
        """Return a file over the connection."""
        return MakeFile(sock, mode, bufsize)

    def _load(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = MINIMUM[self._settings.minimum]
        context.options |= ssl.OP_NO_RENEGOTIATION
        try:
            context.load_cert_chain(self._settings.cert_file, self._settings.key_file, password=_no_passphrase)
        except (OSError, ValueError) as ex:
            files = " and ".join(file for file in (self._settings.cert_file, self._settings.key_file) if file)
            raise ConfigError(f"{self._option}: {files} cannot be used: {' '.join(str(ex).split())}") from ex
        return context


def _no_passphrase() -> str:
    """Refuse a key with a passphrase, because a daemon has no person to ask."""
    raise ValueError("the key has a passphrase")
