"""By what agents know each other where no NATS server vouches for them: a key and a certificate for each life.

An agent makes both when it starts, keeps the key in memory only, and publishes the certificate with its lease, which
nobody else may write. So who has read a host's lease knows its agent's certificate; nobody signs certificates.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_ALWAYS = datetime(1970, 1, 1), datetime(9999, 12, 31)
"""A certificate is valid as long as its host's lease names it: no clock has a say."""


class Identity:
    """One agent's key and certificate."""

    def __init__(self, host: str) -> None:
        """`host`: whose agent it is."""
        key = Ed25519PrivateKey.generate()
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
        builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), *_ALWAYS)
        certificate = builder.sign(key, None)
        self.certificate = certificate.public_bytes(serialization.Encoding.DER)
        """As others need it (DER)."""
        self._pem = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def towards(self, certificate: bytes) -> ssl.SSLContext:
        """For a connection to the one agent that has this certificate. Raises ssl.SSLError if it is none."""
        context = self._context(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=certificate)
        return context

    def from_any(self, known: Callable[[str], bytes | None]) -> ssl.SSLContext:
        """For connections from agents. Each says its host's name, and must have the certificate `known` by that name.

        The name is where TLS has that of a server (SNI, RFC 6066), so it is there before the certificate is judged.
        """

        def named(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
            certificate = None if name is None else known(name)
            if certificate is None:
                return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
            try:
                context = self._context(ssl.PROTOCOL_TLS_SERVER)
                context.load_verify_locations(cadata=certificate)
            except ssl.SSLError:
                return ssl.ALERT_DESCRIPTION_BAD_CERTIFICATE
            connection.context = context
            return None

        nobody = self._context(ssl.PROTOCOL_TLS_SERVER)
        nobody.num_tickets = 0  # whoever comes again is judged again
        nobody.sni_callback = named
        return nobody

    def _context(self, side: int) -> ssl.SSLContext:
        """Believes nobody yet."""
        context = ssl.SSLContext(side)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        # `ssl` takes keys from files only: this one is in memory, and nobody else's.
        file = os.memfd_create("key")
        try:
            os.write(file, self._pem)
            context.load_cert_chain(f"/proc/self/fd/{file}")
        finally:
            os.close(file)
        return context


def peer_of(connection: ssl.SSLObject) -> tuple[str, bytes]:
    """(the host's name, its certificate) of whoever is at the other end."""
    certificate = connection.getpeercert(binary_form=True)
    assert certificate is not None, "a connection without one is refused"
    names = x509.load_der_x509_certificate(certificate).subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[0].value), certificate
