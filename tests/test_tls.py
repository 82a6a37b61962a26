"""TLS from files, and what is said of files that do not work."""

import ssl
import subprocess
from pathlib import Path

import pytest

from labkit.errors import ClientError, ServerError
from labkit.tls import client_tls, server_tls
from tests.certificates import Certificate, self_signed


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return self_signed(tmp_path_factory.mktemp("certificate"))


def test_a_server_speaks_tls_1_2_or_newer(certificate: Certificate) -> None:
    context = server_tls(certificate.cert, certificate.key)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.protocol == ssl.PROTOCOL_TLS_SERVER


def test_one_file_may_hold_both(certificate: Certificate, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_text(certificate.cert.read_text() + certificate.key.read_text())
    server_tls(both)


def test_a_client_trusts_what_it_was_given_and_checks_the_name(certificate: Certificate) -> None:
    context = client_tls(certificate.cert)
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert len(context.get_ca_certs()) == 1


@pytest.mark.parametrize("which", [0, 1])
def test_a_missing_file_is_named(certificate: Certificate, tmp_path: Path, which: int) -> None:
    files = list(certificate)
    files[which] = tmp_path / "none.pem"
    with pytest.raises(ServerError, match=r"none\.pem cannot be read: No such file"):
        server_tls(*files)


def test_a_broken_file_is_named(certificate: Certificate, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    with pytest.raises(ServerError, match=r"broken\.pem and .*key\.pem: no certificate"):
        server_tls(broken, certificate.key)
    with pytest.raises(ServerError, match=r"cert\.pem and .*broken\.pem: no certificate"):
        server_tls(certificate.cert, broken)


def test_the_key_of_another_certificate_is_refused(
    certificate: Certificate, tmp_path: Path
) -> None:
    other = self_signed(tmp_path)
    with pytest.raises(ServerError, match=r"key\.pem: no certificate with its key.*MISMATCH"):
        server_tls(certificate.cert, other.key)


def test_an_encrypted_key_is_refused_and_nobody_is_asked(
    certificate: Certificate, tmp_path: Path
) -> None:
    locked = tmp_path / "locked.pem"
    subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-in", certificate.key, "-out", locked,
         "-passout", "pass:secret"],
        check=True, capture_output=True,
    )  # fmt: skip
    with pytest.raises(ServerError, match=r"locked\.pem: .*not encrypted"):
        server_tls(certificate.cert, locked)


def test_a_client_is_told_what_is_wrong_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match=r"none\.pem cannot be read: No such file"):
        client_tls(tmp_path / "none.pem")
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    with pytest.raises(ClientError, match=r"broken\.pem holds no certificate in PEM"):
        client_tls(broken)
