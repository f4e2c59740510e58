# SPDX-License-Identifier: Apache-2.0
"""No secret in a log, whatever a library or a server says."""

import json
import logging
from collections.abc import Iterator
from types import SimpleNamespace
from urllib.parse import quote

import pytest
from keystoneauth1 import exceptions
from keystonemiddleware.auth_token import _identity
from oslo_config import cfg

from bridge.runtime import config
from bridge.runtime.log_scrub import LogScrubber, configured_secrets, install

PASSWORD = "s3rvice/pass+word"
ECHO = json.dumps({"error": {"message": f"cannot parse password {PASSWORD} of user extend-bridge"}})


@pytest.fixture
def scrubbed() -> Iterator[None]:
    """This process, with one secret."""
    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(LogScrubber(lambda: [PASSWORD]))
    yield
    logging.setLogRecordFactory(before)


@pytest.mark.usefixtures("scrubbed")
@pytest.mark.parametrize("status", [401, 404, 500])
def test_keystonemiddleware_logs_no_body_of_keystones(status: int, caplog: pytest.LogCaptureFixture) -> None:
    """An error's body is logged whole by the library."""
    caplog.set_level(logging.DEBUG, "keystonemiddleware.auth_token")
    kinds = {401: exceptions.Unauthorized, 404: exceptions.NotFound, 500: exceptions.InternalServerError}
    error = kinds[status](ECHO)
    error.response = SimpleNamespace(text=ECHO, status_code=status)

    def refuse(*_: object, **__: object) -> None:
        raise error

    server = _identity.IdentityServer.__new__(_identity.IdentityServer)
    server._LOG = logging.getLogger("keystonemiddleware.auth_token")
    strategy = SimpleNamespace(verify_token=refuse, AUTH_VERSION=(3, 0))
    server._request_strategy_obj = strategy
    with pytest.raises(Exception):  # noqa: B017, PT011 - of that library
        server.verify_token("token")
    assert caplog.records
    assert PASSWORD not in caplog.text
    assert "characters not shown" in caplog.text


@pytest.mark.usefixtures("scrubbed")
@pytest.mark.parametrize("name", ["bridge.engine", "sqlalchemy.pool", "urllib3.connectionpool"])
def test_a_configured_secret_is_in_no_message_and_no_traceback(name: str, caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger(name)
    caplog.set_level(logging.DEBUG, name)
    log.warning("refused: %s", PASSWORD)
    log.warning("at %s", f"https://u:{quote(PASSWORD, safe='')}@broker/")
    try:
        int(f"no such user: {PASSWORD}")
    except ValueError:
        log.exception("failed")
    assert len(caplog.records) == 3
    assert PASSWORD not in caplog.text
    assert quote(PASSWORD, safe="") not in caplog.text
    assert "no such user: ***" in caplog.text


@pytest.mark.usefixtures("scrubbed")
def test_a_secret_that_is_not_configured_is_masked_by_its_name_in_what_a_library_logs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A token that Keystone has just given out, and whatever else is in the body of another service's answer."""
    log = logging.getLogger("urllib3.connectionpool")
    caplog.set_level(logging.DEBUG, log.name)
    log.debug("sent %s", {"auth_password": "one-time-word", "user": "cinder"})
    log.debug('got {"adminPass": "one-time-word", "name": "cinder"}')
    assert len(caplog.records) == 2
    assert "one-time-word" not in caplog.text


def test_secrets_are_all_secret_options_and_of_urls_the_passwords() -> None:
    conf = cfg.ConfigOpts()
    conf.register_opts(
        [
            cfg.StrOpt("password", secret=True, default=PASSWORD),
            cfg.StrOpt("url", secret=True, default="rabbit://u:one%21@a:5672,u:two@b:5672/v"),
            cfg.StrOpt("user", default="public"),
        ],
        group="x",
    )
    conf([])
    assert set(configured_secrets(conf)) >= {PASSWORD, "one%21", "two"}
    assert "public" not in configured_secrets(conf)


def test_a_message_that_does_not_fit_its_arguments_stays_loggings_affair() -> None:
    record = LogScrubber(list)("bridge", logging.INFO, "f", 1, "%d", ("x",), None)
    assert record.args == ("x",)


def test_our_processes_scrub(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Every entry point sets its logging up here."""
    before = logging.getLogRecordFactory()
    try:
        conf = config.load("extend-bridge", [], [], description="")
        config.setup_logging(conf, "extend-bridge")
        assert isinstance(logging.getLogRecordFactory(), LogScrubber)
        install(conf)
    finally:
        logging.setLogRecordFactory(before)
