from __future__ import annotations

import pytest

from novacron.bench.machine import Hardware, describe, load_average, read_bandwidth_bytes_per_s


def _hardware(model: str, num_cpus: int = 4) -> Hardware:
    return Hardware(
        cpu_model=model,
        cpu_flags=(),
        num_physical_cores=4,
        num_usable_cpus=num_cpus,
        memory_bytes=1,
        system="",
    )


@pytest.mark.parametrize(
    ("model", "slug"),
    [
        ("Intel(R) Xeon(R) CPU E-2176G @ 3.70GHz", "intel-xeon-e-2176g-4c"),
        ("AMD EPYC 9B14 96-Core Processor", "amd-epyc-9b14-96-core-4c"),
    ],
)
def test_slugs_fit_into_file_names(model: str, slug: str) -> None:
    assert _hardware(model).slug == slug


def test_this_machine_is_described() -> None:
    environment = describe()
    assert environment.hardware.num_usable_cpus >= 1
    assert environment.hardware.memory_bytes > 2**28
    assert {"novacron", "torch", "msgspec"} <= environment.versions.keys()
    assert load_average() >= 0


def test_memory_can_be_read() -> None:
    assert read_bandwidth_bytes_per_s() > 1e8
