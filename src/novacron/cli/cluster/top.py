"""novacron cluster top: the replicas of a server at work, drawn anew every second."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from novacron.cli.api_client import ApiClient
from novacron.cli.cluster.frame import frame
from novacron.cli.cluster.readings import Reading, pace
from novacron.cli.cluster.server import STATUS, client_of, server_options
from novacron.errors import NovaCronError

_HISTORY = 60  # bars


@click.command()
@server_options
@click.option(
    "--interval",
    type=click.FloatRange(0.1),
    default=1.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option(
    "--window",
    type=click.FloatRange(0.1),
    default=10.0,
    show_default=True,
    help="Seconds that speeds and times are means of.",
)
@click.option("--once", is_flag=True, help="Look twice, print one picture and end.")
def top(url: str, client_key: str | None, interval: float, window: float, *, once: bool) -> None:
    """Watch the replicas of the server at URL: load, speed, KV cache, times to the first token.

    Ends with Ctrl-C. Without a terminal it prints one picture.
    """
    console = Console()
    with client_of(url, client_key) as client:
        view = View(client, window)
        if once or not console.is_terminal:
            view.look()
            time.sleep(interval)
            console.print(view.look())
            return
        _watch(view, console, interval)


def _watch(view: View, console: Console, interval: float) -> None:
    try:
        with Live(view.look(), console=console, screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(interval)
                live.update(view.look_again(), refresh=True)
    except KeyboardInterrupt:
        return


class View:
    """Readings of the last seconds, and the picture of the newest."""

    def __init__(
        self, client: ApiClient, window_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._window_s = window_s
        self._clock = clock
        self._readings: deque[Reading] = deque()
        self._history: deque[float] = deque(maxlen=_HISTORY)
        self._picture: RenderableType = ""

    def look(self) -> RenderableType:
        """Raises what keeps the server from answering."""
        status, metrics = self._client.get(STATUS), self._client.text("/metrics")
        now = Reading.of(self._clock(), status, metrics)
        last = self._readings[-1] if self._readings else None
        self._readings.append(now)
        while now.time_s - self._readings[0].time_s > self._window_s and len(self._readings) > 2:
            self._readings.popleft()
        if last is not None:
            self._history.append(pace(last, now).all_tokens_per_s)
        speed = None if last is None else pace(self._readings[0], now)
        earlier = None if last is None else self._readings[0]
        self._picture = frame(self._client.url, now, speed, self._history, earlier)
        return self._picture

    def look_again(self) -> RenderableType:
        """The last picture, and why, while the server does not answer."""
        try:
            return self.look()
        except NovaCronError as error:
            return Group(self._picture, "", Text(str(error), style="red"))
