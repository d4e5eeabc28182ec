"""The console in a real Chromium, on a real server of the gateway."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fastapi import FastAPI

from novacron.audit.lane_writer import LaneWriter
from novacron.audit.log import AuditLog
from novacron.audit.record import AuditRecord
from novacron.config.server import ServerConfig
from novacron.gateway.app import build_app
from novacron.gateway.auditing.opened import OpenedAudit
from novacron.testing.fake_engine_client import FakeEngineClient, fake_tokenizer
from novacron.testing.serving import serving

playwright = pytest.importorskip("playwright.async_api")
_CHROMIUM = shutil.which("chromium")
_QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync",
    "--disable-component-update", "--no-first-run",
)  # fmt: skip

pytestmark = pytest.mark.skipif(_CHROMIUM is None, reason="no Chromium is installed")

ANSWER = "A bold <b>answer</b> that is no HTML."


# Browsers can set no headers for a WebSocket, so the key goes as a subprotocol (docs/security.md).
SOCKET = """(key) => new Promise((done) => {
    const events = [];
    const coded = btoa(key).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
    const url = location.origin.replace("http", "ws") + "/ws/llm/stream/of-a-browser";
    const socket = new WebSocket(url, ["novacron", "novacron.bearer." + coded]);
    const messages = [{ role: "user", content: "Hello" }];
    socket.onopen = () => socket.send(JSON.stringify({ messages }));
    socket.onmessage = (event) => events.push(JSON.parse(event.data));
    socket.onclose = () => done(events);
})"""


def app_of(folder: Path, *, step_s: float = 0.0, keys: tuple[str, ...] = ()) -> FastAPI:
    client = FakeEngineClient(fake_tokenizer(folder), reply=lambda _: ANSWER, step_s=step_s)
    return build_app(client, ServerConfig(api_key=keys), model_names=("fake",))


@asynccontextmanager
async def opened(app: FastAPI, page_name: str, **context: object) -> AsyncIterator[object]:
    """The page `page_name`, which may complain of nothing while it is open."""
    complaints: list[str] = []
    async with serving(app) as url, playwright.async_playwright() as api:
        browser = await api.chromium.launch(executable_path=_CHROMIUM, args=list(_QUIET))
        page = await (await browser.new_context(**context)).new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text))
        await page.goto(f"{url}/#/{page_name}")
        yield page
        await browser.close()
    # pages show in words of their own what is refused
    refused = ("the server responded with a status of", "HTTP Authentication failed")
    assert [text for text in complaints if not any(one in text for one in refused)] == []


async def test_a_chat_is_streamed_shown_as_text_and_can_be_stopped(tmp_path: Path) -> None:
    async with opened(app_of(tmp_path, step_s=0.02), "chat") as page:
        box = page.get_by_label("Your message")
        await box.fill("Hello")
        await box.press("Enter")
        answer = page.locator(".messages .assistant")
        await playwright.expect(answer).to_contain_text("tokens in")
        assert await answer.locator("p").inner_text() == ANSWER
        assert await box.evaluate("box => box === document.activeElement")

        await page.get_by_label("Most tokens").fill("3")
        await box.fill("Again")
        await page.get_by_role("button", name="Send").click()
        await playwright.expect(answer.nth(1)).to_contain_text("length")

        await page.get_by_label("Most tokens").fill("")
        await box.fill("And again")
        await box.press("Enter")
        await page.get_by_role("button", name="Stop").click()
        await playwright.expect(answer.nth(2)).to_contain_text("stopped")


async def test_figures_of_the_server_are_shown_on_a_phone_in_the_dark(tmp_path: Path) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"}
    async with opened(app_of(tmp_path), "overview", **phone) as page:
        await playwright.expect(page.get_by_role("table", name="Replicas")).to_be_visible()
        await playwright.expect(page.get_by_role("img", name="Tokens:").first).to_be_visible()
        await page.get_by_role("link", name="Cache").click()
        await playwright.expect(page.get_by_role("heading", name="Cache")).to_be_visible()
        await playwright.expect(page.get_by_role("table", name="Tiers")).to_be_visible()
        await page.get_by_role("link", name="Accounts").click()
        await playwright.expect(page.get_by_text("has no accounts")).to_be_visible()
        width = await page.evaluate("document.documentElement.scrollWidth")
        assert width == phone["viewport"]["width"], "nothing sticks out at the side"


async def test_a_server_with_keys_asks_for_one_and_keeps_it_to_the_tab(tmp_path: Path) -> None:
    async with opened(app_of(tmp_path, keys=("secret",)), "overview") as page:
        await page.get_by_label("API key or token").fill("wrong")
        await page.keyboard.press("Enter")
        await playwright.expect(page.get_by_role("alert").first).to_contain_text("not valid")
        await page.get_by_label("API key or token").fill("secret")
        await page.keyboard.press("Enter")
        await playwright.expect(page.get_by_role("table", name="Replicas")).to_be_visible()
        other = await page.context.new_page()
        await other.goto(page.url)
        await playwright.expect(other.get_by_label("API key or token")).to_be_visible()


async def test_with_a_key_the_chat_and_a_browser_s_socket_work(tmp_path: Path) -> None:
    async with opened(app_of(tmp_path, keys=("secret",)), "chat") as page:
        await page.get_by_label("API key or token").fill("secret")
        await page.keyboard.press("Enter")
        box = page.get_by_label("Your message")
        await box.fill("Hello")
        await box.press("Enter")
        answer = page.locator(".messages .assistant")
        await playwright.expect(answer).to_contain_text("tokens in")
        assert await answer.locator("p").inner_text() == ANSWER
        events = await page.evaluate(SOCKET, "secret")
        assert (events[0]["type"], events[-1]["type"]) == ("metadata", "complete")
        assert "".join(one["data"].get("text", "") for one in events) == ANSWER
        assert await page.evaluate(SOCKET, "wrong") == []


async def test_who_did_what_is_told_newest_first_page_by_page(tmp_path: Path) -> None:
    writer = LaneWriter(tmp_path / "audit")
    writer.append(
        [
            AuditRecord(time=float(n), kind="inference", tenant=f"tenant-{n}", route="/v1/<b>")
            for n in range(150)
        ]
    )
    audit = OpenedAudit(AuditLog(writer), tmp_path / "audit")
    client = FakeEngineClient(fake_tokenizer(tmp_path))
    app = build_app(client, ServerConfig(), model_names=("fake",), audit=audit)
    async with opened(app, "audit") as page:
        rows = page.get_by_role("table", name="Records").locator("tbody tr")
        await page.get_by_label("What").select_option("inference")
        await playwright.expect(rows.first).to_contain_text("tenant-149")
        await page.get_by_role("button", name="Older").click()
        await playwright.expect(rows.first).to_contain_text("tenant-49")
        await playwright.expect(rows.first).to_contain_text("/v1/<b>")
        await page.get_by_label("Tenant").fill("tenant-7")
        await page.keyboard.press("Enter")
        await playwright.expect(rows).to_have_count(1)


@pytest.mark.parametrize("name", ["chat", "overview", "cache", "accounts", "audit"])
async def test_whatever_can_be_used_has_a_name_and_is_reached_by_keyboard(
    tmp_path: Path, name: str
) -> None:
    async with opened(app_of(tmp_path), name) as page:
        await playwright.expect(page.locator("main")).not_to_be_empty()
        unnamed = await page.evaluate(
            """() => [...document.querySelectorAll("button, a, input, select, textarea, meter")]
                .filter((one) => !(one.getAttribute("aria-label") || one.textContent.trim()
                    || one.labels?.length))
                .map((one) => one.outerHTML)"""
        )
        assert unnamed == []
        await page.keyboard.press("Tab")
        focused = await page.evaluate("document.activeElement.textContent")
        assert focused in ("To the content", "")  # the chat begins in its message
