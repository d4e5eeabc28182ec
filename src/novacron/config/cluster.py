"""Settings of engines on several hosts, and of the links to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from novacron.config.setting import require, setting

ENGINE_SLOT: Final = "novacron_engine"  # resource of a Ray node; cluster up and join offer it


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """Where engines run."""

    executor: Literal["process", "ray"] = setting(
        "process",
        "who starts engines; process: this machine, or those who wait for it on engine_hosts; ray: "
        "a Ray cluster places data_parallel_size of them on its nodes, and others where nodes end",
    )
    engine_hosts: tuple[str, ...] = setting(
        (),
        "hosts that each run a replica, as KEY@HOST:PORT, which novacron engine prints there; "
        "empty: all engines run here",
    )
    rank_hosts: tuple[str, ...] = setting(
        (),
        "further hosts of one model that is spread over hosts, as KEY@HOST:PORT, which novacron "
        "rank prints there; each has a stage of it, or, without stages, a slice of every layer, or "
        "all of it for some rows of long prompts, and this one the first: pipeline_parallel_size, "
        "tensor_parallel_size or context_parallel_size is one more than hosts are named; with "
        "replicas, those of each in turn; empty: all of it runs here",
    )
    activation_compression: Literal["none", "int8"] = setting(
        "none",
        "with rank_hosts: what hidden states, or parts of sums, are sent in between hosts; int8: "
        "half to a quarter of the bytes, for slow networks; answers are then those of one host no "
        "more, and the error is measured and logged",
    )
    link_key: str = setting(
        "",
        "file with the secret key by which hosts know this server, made where there is none; "
        "empty: ~/.config/novacron/link.key",
    )
    link_timeout: float = setting(
        5.0,
        "an engine's host that is silent for so long is taken to be cut off: its requests go on "
        "elsewhere, and it ends its engine",
        unit="s",
    )
    ray_address: str = setting(
        "auto", "Ray cluster to use, as HOST:PORT; auto: the one that runs on this machine"
    )
    ray_resources: tuple[str, ...] = setting(
        (f"{ENGINE_SLOT}=1",),
        "what each replica takes of its Ray node, as NAME=AMOUNT: CPU=8,GPU=1; nodes of novacron "
        f"cluster up and join have {ENGINE_SLOT}",
    )

    coordinator_address: str = setting(
        "",
        "URL at which other servers with the same database reach this one, such as "
        "http://10.0.0.1:8080; empty: its host and port, or this machine's name",
    )
    coordinator_timeout: float = setting(
        5.0,
        "a server that is silent for so long is taken to have ended by others with the same "
        "database: they take its duties and streams over",
        unit="s",
    )
    stream_journal: Literal["auto", "on", "off"] = setting(
        "auto",
        "keep requests and answers of streams in the database while they run, and "
        "replay_seconds longer, so that another server can go on with them; encrypted where "
        "encryption_key is set; auto: in PostgreSQL",
    )

    def __post_init__(self) -> None:
        require(
            not self.coordinator_address
            or self.coordinator_address.startswith(("http://", "https://")),
            "coordinator_address", self.coordinator_address, "give a URL, such as http://node-1:80",
        )  # fmt: skip
        require(
            0.1 <= self.coordinator_timeout <= 3600, "coordinator_timeout",
            self.coordinator_timeout, "give 0.1 second or more, such as 5s",
        )  # fmt: skip
        require(
            1 <= self.link_timeout <= 3600, "link_timeout", self.link_timeout,
            "give 1 second or more, such as 5s",
        )  # fmt: skip
        require(
            self.executor == "process" or not self.engine_hosts, "engine_hosts", self.engine_hosts,
            "leave it out with executor ray, which finds hosts itself",
        )  # fmt: skip
        require(
            not self.rank_hosts or not self.is_apart, "rank_hosts", self.rank_hosts,
            "leave it out with engine_hosts or executor ray: an engine on another host cannot "
            "spread its stages over further ones yet",
        )  # fmt: skip
        require(
            self.activation_compression == "none" or bool(self.rank_hosts),
            "activation_compression", self.activation_compression,
            "it is for rank_hosts, which are not given",
        )  # fmt: skip
        self.resources()

    @property
    def is_apart(self) -> bool:
        """Whether engines run on other hosts."""
        return self.executor == "ray" or bool(self.engine_hosts)

    def resources(self) -> dict[str, float]:
        """Amounts by name. Raises ConfigError."""
        amounts = {}
        for text in self.ray_resources:
            name, _, amount = text.partition("=")
            try:
                amounts[name.strip()] = float(amount)
            except ValueError:
                amounts[name.strip()] = -1.0
            require(
                bool(name.strip()) and amounts[name.strip()] >= 0, "ray_resources", text,
                "give NAME=AMOUNT, such as CPU=8",
            )  # fmt: skip
        return amounts
