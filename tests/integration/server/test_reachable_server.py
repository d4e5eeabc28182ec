"""A server that others can reach, as it is started without any thought of security."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

import httpx2
import pytest

from novacron.testing.certificates import write_certificate
from novacron.testing.server_process import PATIENCE_S, StartServer, run_novacron, wait_until


def test_it_demands_the_key_that_it_made_and_speaks_https_with_certificates_that_change(
    start_server: StartServer, tmp_path: Path
) -> None:
    write_certificate(tmp_path, "server")
    cert, key_file = tmp_path / "server.pem", tmp_path / "server.key"
    server = start_server(
        "--host", "0.0.0.0", "--state-dir", str(tmp_path / "state"),
        "--tls-cert", str(cert), "--tls-key", str(key_file),
    )  # fmt: skip
    wait_until(lambda: "ready: " in server.log() or server.process.poll() is not None)
    [key] = re.findall(r"nck_\w+", server.log())
    [url] = re.findall(r"ready: (https://\S+) serves", server.log())
    trust = ssl.create_default_context(cafile=cert)
    with httpx2.Client(base_url=url, verify=trust, timeout=PATIENCE_S) as client:
        body = {"prompt": "One", "max_tokens": 2}
        assert client.get("/health").status_code == 200
        assert client.post("/v1/completions", json=body).status_code == 401
        answer = client.post("/v1/completions", json=body, headers={"x-api-key": key})
        assert answer.status_code == 200, answer.text
        assert "strict-transport-security" in answer.headers

    done = run_novacron(
        "complete", "--url", url, "--max-tokens", "2", "One",
        environment={"SSL_CERT_FILE": str(cert), "NOVACRON_API_KEY": key},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

    write_certificate(tmp_path, "server")  # a new one in its place
    wait_until(lambda: "a new certificate was read" in server.log())
    renewed = ssl.create_default_context(cafile=cert)
    assert httpx2.get(f"{url}/health", verify=renewed).status_code == 200
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{url}/health", verify=trust)
    assert server.log().count(key) == 1
    server.process.terminate()
    assert server.wait_exit() == 0
