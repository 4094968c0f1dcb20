"""Servers on loopback with the addresses and answers of GitHub and the Hugging Face Hub, for clients that are left as they are.

`Loopback` serves plain HTTP, and is a proxy for HTTPS: with ``https_proxy`` a client asks it to connect it to github.com, and it
answers in github.com's place, with a certificate of an authority that the client is told to trust.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Answer:
    """Of a server: a file, text, or the address to ask next."""

    content: Path | bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


Router = Callable[[str, str], Answer | None]


@dataclass(frozen=True)
class Loopback:
    """A running server; `asked` has the host and path of every request, in order."""

    port: int
    authority: Path
    asked: list[tuple[str, str]]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What makes clients reach hosts through it, and trust it; requests to itself go straight."""
        certificate = str(self.authority)
        trust = dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"), certificate)
        return {"https_proxy": self.address, "no_proxy": "127.0.0.1", "HF_ENDPOINT": self.address, **trust}


@contextmanager
def serve(route: Router, hosts: list[str], folder: Path) -> Iterator[Loopback]:
    """Answer requests by ``route(host, path)``, None of which is 404, until the block ends.

    Args:
        route: host is a name of `hosts`, or 127.0.0.1.
        hosts: whose place is taken when a client asks to be connected to them.
        folder: gets the certificates.
    """
    authority, chain = write_certificates(hosts, folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    asked: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        host = "127.0.0.1"

        def do_CONNECT(self) -> None:
            self.host = self.path.partition(":")[0]
            if self.host not in hosts:
                self.send_error(502, f"no {self.host} here")
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.flush()
            self.connection = context.wrap_socket(self.connection, server_side=True)
            self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb")
            self.close_connection = False

        def do_GET(self) -> None:
            asked.append((self.host, self.path))
            answer = route(self.host, unquote(urlsplit(self.path).path)) or Answer(b"{}", 404)
            content = answer.content.read_bytes() if isinstance(answer.content, Path) else answer.content
            self.send_response(answer.status)
            for name, value in {"Content-Length": str(len(content)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)
            self.wfile.flush()

        do_HEAD = do_GET

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Loopback(server.server_address[1], authority, asked)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def github(release: dict[str, Path], repository: str, tags: list[str], model_info: Path) -> Router:
    """A repository whose releases have the same files: they lie at another host, as GitHub's do; raw files; the list of releases.

    Args:
        release: the files of each release by name.
        repository: ``owner/name``.
        tags: of the releases.
        model_info: ``models/model_info.json`` at these tags.
    """
    storage = "release-assets.githubusercontent.com"
    place = f"https://github.com/{repository}/releases/download"

    def route(host: str, path: str) -> Answer | None:
        name = path.rpartition("/")[2]
        if host == "github.com" and name in release and path in [f"/{repository}/releases/download/{tag}/{name}" for tag in tags]:
            return Answer(status=302, headers={"Location": f"https://{storage}/assets/{name}?token=1"})
        if (host, path) == (storage, f"/assets/{name}") and name in release:
            return Answer(release[name], headers={"Content-Type": "application/octet-stream"})
        if host == "raw.githubusercontent.com" and path in [f"/{repository}/{tag}/models/model_info.json" for tag in tags]:
            return Answer(model_info)
        if (host, path) == ("api.github.com", f"/repos/{repository}/releases"):
            listed = [
                {"tag_name": tag, "assets": [{"name": name, "browser_download_url": f"{place}/{tag}/{name}"} for name in release]}
                for tag in tags
            ]
            return Answer(json.dumps(listed).encode(), headers={"Content-Type": "application/json"})
        return None

    return route


def hub(folder: Path, repository: str, revision: str) -> Router:
    """A model of the Hugging Face Hub with the files of a folder, at one revision.

    As of huggingface_hub 2.4: the revision's commit, the tree at that commit, and each file with its etag.
    """
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    as_json = {"Content-Type": "application/json", "X-Repo-Commit": COMMIT}

    def route(host: str, path: str) -> Answer | None:
        if path == f"/api/models/{repository}/revision/{revision}":
            siblings = [{"rfilename": name} for name in files]
            model = {"id": repository, "modelId": repository, "sha": COMMIT, "private": False, "tags": [], "siblings": siblings}
            return Answer(json.dumps(model).encode(), headers=as_json)
        if path.rstrip("/") == f"/api/models/{repository}/tree/{COMMIT}":
            tree = [
                {"type": "file", "path": name, "size": file.stat().st_size, "oid": _etag(name)} for name, file in files.items()
            ]
            return Answer(json.dumps(tree).encode(), headers=as_json)
        prefix = f"/{repository}/resolve/{COMMIT}/"
        if path.startswith(prefix) and path.removeprefix(prefix) in files:
            name = path.removeprefix(prefix)
            return Answer(files[name], headers={"ETag": f'"{_etag(name)}"', "X-Repo-Commit": COMMIT})
        return None

    return route


def _etag(name: str) -> str:
    """Forty digits that differ from file to file, as Git's do."""
    return hashlib.sha1(name.encode()).hexdigest()


def write_certificates(hosts: list[str], folder: Path) -> tuple[Path, Path]:
    """An authority's certificate, and a certificate of its making for some hosts with its key, both valid for an hour."""
    now = datetime.datetime.now(datetime.timezone.utc)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    root, own = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("loopback authority", "loopback"))

    def build(subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        is_root = subject == root
        usage = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only"),
            False,
        )
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(root)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[0].public_key()), critical=False)
            .add_extension(x509.KeyUsage(digital_signature=True, key_cert_sign=is_root, crl_sign=is_root, **usage), critical=True)
        )

    names = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])
    server_only = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    certificates = (
        build(root, keys[0]).sign(keys[0], hashes.SHA256()),
        build(own, keys[1]).add_extension(names, critical=False).add_extension(server_only, False).sign(keys[0], hashes.SHA256()),
    )
    pem = [certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates]
    key = keys[1].private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    authority, chain = folder / "authority.pem", folder / "loopback.pem"
    authority.write_bytes(pem[0])
    chain.write_bytes(pem[1] + key)
    return authority, chain
