# ruff: noqa: F811
"""A database by URL over TLS, with certificates made for the test.

PostgreSQL's TLS is spoken by a relay in front of the real embedded server (whose build has none), and, where the
machine has one, by a server with OpenSSL itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from npllm import config
from npllm.memory import binaries, tls
from npllm.memory.postgres import Endpoint
from npllm.memory.store import Store
from npllm.types import StoreError
from tests.fixtures_memory import database_url, make_experience, postgres, store_config  # noqa: F401

SSL_REQUEST = bytes.fromhex("0000000804d2162f")
needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl, which makes the certificates, is missing"
)


@dataclass(frozen=True)
class Certificates:
    authority: Path
    certificate: Path
    key: Path


def make_certificates(folder: Path, name: str) -> Certificates:
    """An authority of one's own, and a server's certificate signed by it for localhost."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60)

    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl(
        "req", "-x509", *new, "-keyout", f"{name}-ca.key", "-out", f"{name}-ca.crt", "-subj", f"/CN={name} authority"
    )
    openssl("req", *new, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", "/CN=localhost")
    extension = folder / f"{name}.ext"
    extension.write_text("subjectAltName=DNS:localhost\n", encoding="ascii")
    signed = ["-CA", f"{name}-ca.crt", "-CAkey", f"{name}-ca.key", "-CAcreateserial", "-extfile", extension.name]
    openssl("x509", "-req", "-in", f"{name}.csr", *signed, "-out", f"{name}.crt", "-days", "2")
    return Certificates(folder / f"{name}-ca.crt", folder / f"{name}.crt", folder / f"{name}.key")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"), "ours")


@contextlib.asynccontextmanager
async def relay(behind: Endpoint, certificates: Certificates | None) -> AsyncIterator[int]:
    """A port that speaks PostgreSQL over TLS, or without where there is no certificate; all else is the server's."""
    open_ones: list[asyncio.StreamWriter] = []
    context = None
    if certificates is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates.certificate, certificates.key)

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ssl.SSLError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_ones.append(writer)
        try:
            first = await reader.readexactly(8)
            if first == SSL_REQUEST:
                writer.write(b"N" if context is None else b"S")
                await writer.drain()
                if context is not None:
                    await writer.start_tls(context)
                first = b""
            inner_reader, inner = await asyncio.open_unix_connection(f"{behind.host}/.s.PGSQL.{behind.port}")
        except (OSError, ssl.SSLError, asyncio.IncompleteReadError):
            writer.close()
            return
        open_ones.append(inner)
        inner.write(first)
        await asyncio.gather(copy(reader, inner), copy(inner_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in open_ones:
            writer.transport.abort()
        await asyncio.sleep(0.05)


def with_url(base: config.Config, url: str) -> config.Config:
    return config.merge(base, {"database": {"url": url}}, source="the test")


def url(port: int, database: str, *, host: str = "localhost", **query: str) -> str:
    said = "&".join(f"{name}={value}" for name, value in query.items())
    return f"postgresql://npllm@{host}:{port}/{database}?{said}"


@needs_openssl
async def test_memory_over_tls_with_every_check(
    store_config: config.Config, database_url: str, postgres: Endpoint, certificates: Certificates, tmp_path: Path
) -> None:
    database = database_url.split("/")[3].split("?")[0]
    other = make_certificates(tmp_path, "other")
    async with relay(postgres, certificates) as port, relay(postgres, None) as bare:
        checked = url(port, database, sslmode="verify-full", sslrootcert=str(certificates.authority))
        store = await Store.connect(with_url(store_config, checked))
        await store.write([make_experience()])
        assert (await store.counts()).experiences == 1
        await store.close()

        wrong = url(port, database, sslmode="verify-full", sslrootcert=str(other.authority))
        with pytest.raises(StoreError, match=r"not signed by an authority .*sslrootcert=.*may not be the server"):
            await Store.connect(with_url(store_config, wrong))
        elsewhere = url(
            port, database, host="127.0.0.1", sslmode="verify-full", sslrootcert=str(certificates.authority)
        )
        with pytest.raises(StoreError, match="made for another name"):
            await Store.connect(with_url(store_config, elsewhere))
        missing = url(port, database, sslmode="verify-full", sslrootcert=str(tmp_path / "none.crt"))
        with pytest.raises(StoreError, match=r"none\.crt|No such file"):
            await Store.connect(with_url(store_config, missing))
        plain = url(bare, database, sslmode="require")
        with pytest.raises(StoreError, match=r"offers no TLS.*ssl = on.*sslmode=disable"):
            await Store.connect(with_url(store_config, plain))


def test_another_machine_is_not_spoken_to_in_the_clear_unless_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGSSLMODE", raising=False)
    monkeypatch.delenv("PGHOST", raising=False)
    required = {"ssl": "require"}
    assert tls.arguments("postgresql://me@db.example.org/npllm") == required
    assert tls.arguments("postgresql://me@10.0.0.7:5433/npllm?application_name=x") == required
    assert tls.arguments("postgresql://me@localhost,db.example.org/npllm") == required
    assert tls.arguments("postgresql://me@/npllm?host=db.example.org") == required
    assert tls.arguments("postgresql://me@db.example.org/npllm?host=localhost") == required
    assert tls.arguments("postgresql://me@[2001:db8::7]/npllm") == required
    for local in ("localhost", "127.0.0.1:5433", "[::1]:5432", "[::1]", "%2Fvar%2Frun%2Fpostgresql", ""):
        assert tls.arguments(f"postgresql://me@{local}/npllm") == {}
    assert tls.arguments("postgresql://me@/npllm?host=/var/run/postgresql") == {}
    assert tls.arguments("postgresql://me@db.example.org/npllm?sslmode=disable") == {}
    assert tls.arguments("this is no url") == {}
    monkeypatch.setenv("PGHOST", "db.example.org")
    assert tls.arguments("postgresql:///npllm") == tls.arguments("postgresql://me@/npllm") == required
    assert tls.arguments("postgresql://me@localhost/npllm") == tls.arguments("postgresql:///npllm?host=/tmp") == {}
    assert tls.arguments("postgresql:///npllm?sslmode=disable") == {}
    for named, told in (("::1", {}), ("/tmp", {}), ("localhost", {}), ("2001:db8::7", required)):
        monkeypatch.setenv("PGHOST", named)
        assert tls.arguments("postgresql:///npllm") == told, named
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    assert tls.arguments("postgresql://me@db.example.org/npllm") == {}


def servers_with_openssl() -> list[Path]:
    found = []
    for program in sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
        libraries = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False).stdout
        if "libssl" in libraries:
            found.append(program)
    return found


@pytest.fixture
def own_server(tmp_path: Path, certificates: Certificates) -> Iterator[int]:
    """A port of a PostgreSQL that speaks TLS itself, and nothing else."""
    programs = servers_with_openssl()
    if not programs:
        pytest.skip("this machine has no PostgreSQL with OpenSSL (Debian: postgresql)")
    account = binaries.server_account()
    folder = Path(subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip())
    key, certificate = folder / "server.key", folder / "server.crt"
    shutil.copy(certificates.key, key)
    shutil.copy(certificates.certificate, certificate)
    key.chmod(0o600)
    if account is not None:
        for path in (folder, key, certificate):
            os.chown(path, account.uid, account.gid)
    data, programs_folder = folder / "data", programs[-1].parent
    port = free_port()
    options = (
        f"-c ssl=on -c ssl_cert_file={certificate} -c ssl_key_file={key} -c port={port} -c listen_addresses=localhost"
    )
    options += f" -c unix_socket_directories={folder} -c fsync=off"

    def run(program: str, *arguments: str) -> None:
        code, said = binaries.run(programs_folder / program, arguments, account, timeout=120, pgdata=data)
        assert code == 0, said

    try:
        run("initdb", "-U", "npllm", "-A", "trust")
        (data / "pg_hba.conf").write_text("hostssl all all all trust\n", encoding="ascii")
        with (folder / "log").open("wb") as log:
            started = ["start", "-w", "-s", "-t", "60", "-o", options]
            code, _ = binaries.run(programs_folder / "pg_ctl", started, account, timeout=90, pgdata=data, output=log)
        assert code == 0, (folder / "log").read_text(encoding="utf-8")
        yield port
        run("pg_ctl", "stop", "-m", "immediate")
    finally:
        shutil.rmtree(folder)


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@needs_openssl
async def test_a_server_with_openssl_itself(
    home: Path, own_server: int, certificates: Certificates, tmp_path: Path
) -> None:
    """It has no pgvector, and to be told so is to have been let in."""
    base = config.load(home)
    checked = url(own_server, "postgres", sslmode="verify-full", sslrootcert=str(certificates.authority))
    with pytest.raises(StoreError, match=r"no pgvector"):
        await Store.connect(with_url(base, checked))
    other = make_certificates(tmp_path, "other")
    wrong = url(own_server, "postgres", sslmode="verify-full", sslrootcert=str(other.authority))
    with pytest.raises(StoreError, match=r"not signed by an authority"):
        await Store.connect(with_url(base, wrong))
    with pytest.raises(StoreError, match=r"no pg_hba\.conf entry.*no encryption"):
        await Store.connect(with_url(base, url(own_server, "postgres", sslmode="disable")))
