"""TLS to a provider: whoever does not prove the right name gets no byte of a request."""

import asyncio
import datetime
import ipaddress
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from raw_provider import on_both_loops, pool_to, raw_provider, told

from stanchion.gateway.upstream_faults import Untrusted
from stanchion.gateway.upstream_pool import trusted


class Authority:
    """A certificate authority of a test, and certificates of its own."""

    def __init__(self, folder) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self._name = name
        own = self._certificate(name, self._key.public_key(), [], is_authority=True)
        self.path = folder / "ca.pem"
        self.path.write_bytes(own.public_bytes(serialization.Encoding.PEM))

    def _certificate(self, subject, public, names, *, is_authority=False, days=2):
        now = datetime.datetime.now(datetime.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=3))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if names:
            made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return made.sign(self._key, hashes.SHA256())

    def server(self, *names, days=2) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
        certificate = self._certificate(subject, key.public_key(), list(names), days=days)
        path = self._folder / f"{certificate.serial_number}.pem"
        path.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        context.set_alpn_protocols(["h2", "http/1.1"])
        return context

    def client(self) -> ssl.SSLContext:
        context = trusted()
        context.load_verify_locations(self.path)
        return context


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


@on_both_loops
async def test_tls_is_verified_and_speaks_the_right_name_and_protocol(authority):
    seen = []

    async def speak(talk):
        tls = talk.writer.get_extra_info("ssl_object")
        seen.append((tls.selected_alpn_protocol(), tls.version()))
        await talk.answer()

    server = authority.server(x509.DNSName("localhost"))
    server.sni_callback = lambda _, name, __: seen.append(name)
    async with (
        raw_provider(speak, tls=server) as provider,
        pool_to(provider, scheme="https", host="localhost", tls=authority.client) as pool,
    ):
        for _ in range(5):
            assert await told(pool) == (200, b"hello")
        assert provider.connections == 1
        assert seen[:2] == ["localhost", ("http/1.1", "TLSv1.3")]


@on_both_loops
async def test_an_address_in_the_certificate_is_a_name_too(authority):
    server = authority.server(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    async with (
        raw_provider(tls=server) as provider,
        pool_to(provider, scheme="https", tls=authority.client) as pool,
    ):
        assert await told(pool) == (200, b"hello")


@on_both_loops
@pytest.mark.parametrize("fault", ["another name", "too old", "unknown authority"])
async def test_a_certificate_that_is_not_right_ends_it_before_a_byte_is_sent(authority, fault):
    names = [x509.DNSName("elsewhere.example" if fault == "another name" else "localhost")]
    server = authority.server(*names, days=-1 if fault == "too old" else 2)
    client = trusted if fault == "unknown authority" else authority.client
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # the other side's failed handshake
    async with (
        raw_provider(tls=server) as provider,
        pool_to(provider, scheme="https", host="localhost", tls=client) as pool,
    ):
        for _ in range(2):
            with pytest.raises(Untrusted):
                await told(pool)
        assert provider.requests == []
        assert pool.open == 0


@on_both_loops
async def test_what_does_not_speak_tls_is_not_trusted(authority):
    async def plain(reader, writer):
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with (
        await asyncio.start_server(plain, "127.0.0.1", 0) as server,
        pool_to(server.sockets[0].getsockname()[1], scheme="https", tls=authority.client) as pool,
    ):
        with pytest.raises(Untrusted):
            await told(pool)
