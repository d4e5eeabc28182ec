"""Real handshakes with certificates that this test makes."""

from __future__ import annotations

import ssl
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from novacron.cli.certificate import Certificate
from novacron.config.server import ServerConfig
from novacron.errors import ConfigError
from novacron.testing.certificates import write_certificate


def move(folder: Path, name: str, to: str) -> None:
    """As tools for certificates do: a new file takes the name of the old one."""
    for ending in ("pem", "key"):
        (folder / f"{name}.{ending}").rename(folder / f"{to}.{ending}")


def config(folder: Path, **fields: str) -> ServerConfig:
    return ServerConfig(
        tls_cert=str(folder / "server.pem"), tls_key=str(folder / "server.key"), **fields
    )


def client(folder: Path, name: str | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if name is not None:
        context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return context


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> str:
    """The common name of the server's certificate. Raises SSLError if either side refuses."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    for _ in range(4):
        for side in (theirs, ours):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    with suppress(ssl.SSLWantReadError):
        ours.read()  # in TLS 1.3 the client's certificate is looked at here
    shown = x509.load_der_x509_certificate(theirs.getpeercert(binary_form=True) or b"")
    return str(shown.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def test_a_new_certificate_is_shown_from_the_next_handshake_on(tmp_path: Path) -> None:
    write_certificate(tmp_path, "server")
    certificate = Certificate(config(tmp_path))
    context = certificate.context
    assert shake_hands(context, client(tmp_path)) == "server"
    assert not certificate.reload_if_changed()
    write_certificate(tmp_path, "renewed")
    move(tmp_path, "renewed", "server")
    assert shake_hands(context, client(tmp_path)) == "server"
    assert certificate.reload_if_changed()
    assert not certificate.reload_if_changed()
    assert shake_hands(context, client(tmp_path)) == "renewed"


def test_files_that_do_not_fit_change_nothing_until_they_do(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_certificate(tmp_path, "server")
    certificate = Certificate(config(tmp_path))
    write_certificate(tmp_path, "renewed")
    (tmp_path / "renewed.pem").rename(tmp_path / "server.pem")  # the key has not come yet
    assert not certificate.reload_if_changed()
    assert "old certificate stays" in caplog.text
    assert shake_hands(certificate.context, client(tmp_path)) == "server"
    (tmp_path / "server.key").unlink()
    assert not certificate.reload_if_changed()
    (tmp_path / "renewed.key").rename(tmp_path / "server.key")
    assert certificate.reload_if_changed()
    assert shake_hands(certificate.context, client(tmp_path)) == "renewed"


def test_clients_show_a_certificate_of_the_roots_that_count_now(tmp_path: Path) -> None:
    for name in ("server", "ann", "bob"):
        write_certificate(tmp_path, name)
    roots = tmp_path / "roots.pem"
    roots.write_bytes((tmp_path / "ann.pem").read_bytes())
    certificate = Certificate(config(tmp_path, tls_client_ca=str(roots)))
    assert shake_hands(certificate.context, client(tmp_path, "ann")) == "server"
    for name in (None, "bob"):
        with pytest.raises(ssl.SSLError):
            shake_hands(certificate.context, client(tmp_path, name))
    roots.write_bytes((tmp_path / "bob.pem").read_bytes() + b"\n")
    assert certificate.reload_if_changed()
    assert shake_hands(certificate.context, client(tmp_path, "bob")) == "server"
    with pytest.raises(ssl.SSLError):
        shake_hands(certificate.context, client(tmp_path, "ann"))


def test_old_protocols_are_refused(tmp_path: Path) -> None:
    write_certificate(tmp_path, "server")
    old = client(tmp_path)
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        shake_hands(Certificate(config(tmp_path)).context, old)


def test_a_certificate_that_cannot_be_used_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tls_cert"):
        Certificate(config(tmp_path))
    write_certificate(tmp_path, "server")
    write_certificate(tmp_path, "other")
    (tmp_path / "other.key").rename(tmp_path / "server.key")
    with pytest.raises(ConfigError, match="fit together"):
        Certificate(config(tmp_path))
    both = tmp_path / "both.pem"
    both.write_bytes((tmp_path / "other.pem").read_bytes() + (tmp_path / "server.key").read_bytes())
    one_file = Certificate(ServerConfig(tls_cert=str(both)))
    assert shake_hands(one_file.context, client(tmp_path)) == "other"
