"""Real servers: `novacron serve` in a process of its own. Most tests share one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import openai
import pytest

from novacron.demo import bundled_model_path
from novacron.testing.server_process import PATIENCE_S, ServerProcess, StartServer

_TEACHES_TOOLS = (
    "{%- if tools -%}<|system|>Answer with <tool_call>JSON</tool_call>. "
    "Functions: {{ tools | tojson }}<|end|>{%- endif -%}"
)
_LOGS = pytest.StashKey[list[Path]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Show the servers' logs where a test failed."""
    report = yield
    if report.failed:
        for log in item.config.stash.get(_LOGS, []):
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
            report.sections.append((f"server log {log}", tail))
    return report


@pytest.fixture(scope="session")
def launch(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StartServer]:
    """Starts servers that may live as long as the session: `launch(*arguments, **environment)`."""
    logs = request.config.stash.setdefault(_LOGS, [])
    with ExitStack() as servers:

        def start(*arguments: str, **environment: str) -> ServerProcess:
            log_file = tmp_path_factory.mktemp("server") / "server.log"
            logs.append(log_file)
            server = ServerProcess(
                "--num-threads", "1", "--dtype", "float32",
                "--heartbeat-timeout", "0",  # tests stop engines so that nothing ends too early
                *arguments,
                log_file=log_file, environment=environment,
            )  # fmt: skip
            return servers.enter_context(server)

        yield start


@pytest.fixture
def start_server(launch: StartServer) -> Iterator[StartServer]:
    """Starts servers that end with the test."""
    with ExitStack() as servers:

        def start(*arguments: str, **environment: str) -> ServerProcess:
            return servers.enter_context(launch(*arguments, **environment))

        yield start


@pytest.fixture(scope="session")
def server(
    launch: StartServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """The bundled model with a template that teaches tools. Tests leave it as they found it, and
    whatever they asked of it, it ends cleanly."""
    own = (bundled_model_path() / "chat_template.jinja").read_text()
    template = tmp_path_factory.mktemp("template") / "tools.jinja"
    start = "{{- bos_token -}}"
    assert own.startswith(start)
    template.write_text(start + _TEACHES_TOOLS + own.removeprefix(start))
    server = launch("--chat-template", str(template)).wait_ready()
    yield server
    server.process.terminate()
    assert server.wait_exit() == 0
    assert server.log_records("error") == []


@pytest.fixture
async def api(server: ServerProcess) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=PATIENCE_S
    ) as client:
        yield client


@pytest.fixture
async def http(server: ServerProcess) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as client:
        yield client
