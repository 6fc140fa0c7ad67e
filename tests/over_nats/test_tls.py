"""Mutual TLS between agents and NATS, besides the nkeys: certificates of a farm's own authority."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256

from nvi.nats.connection import Connection, NatsConfig

from .farm import LAYOUT, Nats, endpoint, host, until

VALID = datetime(2020, 1, 1), datetime(2120, 1, 1)


class Authority:
    """Signs certificates."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self._key = generate_private_key(SECP256R1())
        own = self._builder(self._name, self._key).add_extension(x509.BasicConstraints(True, None), critical=True)
        self.path = directory / f"{name}.pem"
        self.path.write_bytes(own.sign(self._key, SHA256()).public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> tuple[str, str]:
        """Paths of a certificate and its key."""
        key = generate_private_key(SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        at = x509.SubjectAlternativeName([x509.DNSName("localhost")])
        certificate = self._builder(subject, key).add_extension(at, critical=False).sign(self._key, SHA256())
        paths = self._directory / f"{name}.crt", self._directory / f"{name}.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        pem, pkcs8, open_ = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        paths[1].write_bytes(key.private_bytes(pem, pkcs8, open_))
        return str(paths[0]), str(paths[1])

    def _builder(self, subject: x509.Name, key: EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return x509.CertificateBuilder(self._name, subject, key.public_key(), x509.random_serial_number(), *VALID)


@pytest.fixture
def authority(nats: Nats) -> Authority:
    """Whose certificates the server wants, and shows."""
    authority = Authority(nats.directory, "farm")
    certificate, key = authority.issue("server")
    nats.kill()
    nats.server = msgspec.structs.replace(nats.server, ca=str(authority.path), certificate=certificate, key=key)
    nats.start()
    return authority


def _config(nats: Nats, user: str, authority: Authority, issuer: Authority | None) -> NatsConfig:
    certificate, key = (None, None) if issuer is None else issuer.issue(user)
    servers = (f"tls://localhost:{nats.port}",)
    return NatsConfig(servers, str(nats.directory / f"{user}.nk"), str(authority.path), certificate, key)


async def test_an_agent_with_a_certificate_is_let_in(nats: Nats, authority: Authority) -> None:
    nats.config = lambda user: _config(nats, user, authority, authority)  # type: ignore[method-assign]
    await nats.prepare()
    async with nats.directory_of("h1") as one, nats.directory_of("h2") as other:
        await one.publish_host(host("h1"))
        web1 = endpoint("web1", "h1", "10.0.0.1")
        await one.publish_endpoint(web1)
        assert await other.endpoint("acme", web1.address) == web1


@pytest.mark.parametrize("who", ["nobody's", "another authority's"])
async def test_an_agent_without_one_of_this_farm_s_is_not(
    nats: Nats, authority: Authority, who: str, capsys: pytest.CaptureFixture[str]
) -> None:
    issuer = None if who == "nobody's" else Authority(nats.directory, "stranger")
    config = _config(nats, "h1", authority, issuer)
    await _tries_in_vain(config)
    said = capsys.readouterr().out
    assert "PRIVATE" not in said
    assert (nats.directory / "h1.nk").read_text().strip() not in said


async def test_a_server_of_another_authority_is_not_believed(nats: Nats, authority: Authority) -> None:
    stranger = Authority(nats.directory, "stranger")
    await _tries_in_vain(_config(nats, "h1", stranger, authority))


async def _tries_in_vain(config: NatsConfig) -> None:
    connection = Connection(config, "h1", LAYOUT.inbox("h1"))
    connection.start()
    try:
        await until(lambda: "trying again" in connection.state, "one of both is refused")
        assert not connection.connected
        assert "check ca, certificate and key against the server's" in connection.state
    finally:
        await connection.stop()
