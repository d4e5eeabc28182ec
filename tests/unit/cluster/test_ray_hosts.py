"""RayHosts over a process that speaks as ray_platform does, without Ray."""

from __future__ import annotations

import asyncio
import os

import pytest

from novacron.cluster import ray_hosts
from novacron.cluster.ray_hosts import RayHosts, RaySettings
from novacron.engine.link.keys import KeyPair
from novacron.errors import ConfigError, ModelLoadError

KEY = KeyPair.make().public
SETTINGS = RaySettings("head:9090", {"novacron_engine": 1.0}, KEY, "9100-9199")
# Answers as told by the name of the replica; "ends" ends the process the first time.
SCRIPT = f"""
import json, os, sys
told = json.loads(sys.stdin.readline())
assert told["resources"] == {{"novacron_engine": 1.0}}
def say(**found):
    print(json.dumps({{"type": "Found"}} | found), flush=True)
if told["address"] == "nowhere:1":
    say(number=0, error="no cluster there")
    sys.exit(1)
node = dict(name="node-1", address="10.0.0.2", is_alive=True, num_places=1.0)
say(type="Nodes", nodes=[node, node | dict(name="node-2", is_alive=False)])
for line in sys.stdin:
    find = json.loads(line)
    if find["replica"] == "refused":
        say(number=find["number"], error="no such module")
    elif find["replica"] == "ends" and not os.path.exists(os.environ["MARK"]):
        open(os.environ["MARK"], "w").close()
        sys.exit(1)
    else:
        port = 9100 + len(find["replica"])
        say(number=find["number"], address="{KEY}@10.0.0.2:%d" % port)
"""


@pytest.fixture(autouse=True)
def _scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_hosts, "_PROGRAM", SCRIPT)
    monkeypatch.setattr(ray_hosts, "_RETRY_S", 0.0)


async def test_each_replica_is_found_and_the_process_asked_again_when_it_ends(tmp_path) -> None:
    hosts = RayHosts(SETTINGS, os.environ | {"MARK": str(tmp_path / "mark")})
    found = await asyncio.gather(hosts.find("a"), hosts.find("bb"))
    assert [address.port for address in found] == [9101, 9102]
    assert found[0].public_key == KEY
    assert [(one.name, one.is_alive) for one in hosts.nodes] == [
        ("node-1", True),
        ("node-2", False),
    ]
    assert (await hosts.find("ends")).port == 9104
    with pytest.raises(ModelLoadError, match="no such module"):
        await hosts.find("refused")
    await hosts.close()


async def test_who_stops_asking_does_not_stop_the_question() -> None:
    hosts = RayHosts(SETTINGS, os.environ)
    first = asyncio.create_task(hosts.find("a"))
    await asyncio.sleep(0)
    second = asyncio.create_task(hosts.find("a"))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).port == 9101
    await hosts.close()


async def test_no_cluster_is_said_with_a_remedy() -> None:
    hosts = RayHosts(RaySettings("nowhere:1", SETTINGS.resources, KEY, ""), os.environ)
    with pytest.raises(ConfigError, match=r"^ray_address.*no cluster there.*cluster up"):
        await hosts.find("a")
    await hosts.close()
