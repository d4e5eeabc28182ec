from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from novacron.errors import ConfigError
from novacron.kernels.linear import FLOAT8, Quantization
from novacron.kernels.table import TORCH_KERNELS
from novacron.models.decoder import Decoder, build_decoder
from novacron.models.decoder_config import DecoderConfig
from novacron.models.model_files import read_model_files
from novacron.models.rank_shares import refuse_cut_groups, refuse_uneven_shares
from novacron.models.registry import find_family
from novacron.models.weight_precision import WeightPrecision
from novacron.parallel.communicator import LocalCommunicator
from novacron.parallel.groups import ParallelGroup
from novacron.testing.tiny_models import make_tiny_model


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> DecoderConfig:
    files = read_model_files(make_tiny_model("llama", tmp_path_factory.mktemp("llama")))
    return find_family(files.config)[1].read_config(files.config)


def part_of(
    config: DecoderConfig, ranks: int, quantization: Quantization | None, dtype: torch.dtype
) -> Decoder:
    return build_decoder(
        config,
        ParallelGroup(0, ranks),
        LocalCommunicator(),
        TORCH_KERNELS,
        precision=WeightPrecision.uniform(quantization),
        dtype=dtype,
        device=torch.device("meta"),
    )


def test_even_shares_pass(config: DecoderConfig) -> None:
    for ranks in (1, 2, 4):
        refuse_uneven_shares(config, ranks)
        refuse_cut_groups(part_of(config, ranks, None, torch.bfloat16))
    refuse_uneven_shares(replace(config, num_kv_heads=1), 4)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"num_heads": 6}, "6 attention heads"),
        ({"ffn_size": 130}, "130 neurons of a feed-forward network"),
        ({"num_kv_heads": 3}, "3 key-value heads"),
        ({"vocab_size": 3}, "3 tokens"),
    ],
)
def test_uneven_ones_are_refused(
    config: DecoderConfig, changes: dict[str, int], reason: str
) -> None:
    with pytest.raises(ConfigError, match=f"tensor_parallel_size is 4, but .*{reason}"):
        refuse_uneven_shares(replace(config, **changes), 4)  # type: ignore[arg-type]


def test_a_group_that_ranks_would_cut_is_refused(config: DecoderConfig) -> None:
    with pytest.raises(
        ConfigError,
        match=r"each would hold 32 inputs of .*o_proj.weight, but 64 share .*_size to 32",
    ):
        refuse_cut_groups(part_of(config, 2, Quantization(8, 64), torch.float32))
    refuse_cut_groups(part_of(config, 2, Quantization(8, 32), torch.float32))
    with pytest.raises(ConfigError, match="fp8, whose scales reach over"):
        refuse_cut_groups(part_of(config, 2, FLOAT8, torch.float32))


def test_an_odd_number_of_bfloat16_inputs_is_refused(config: DecoderConfig) -> None:
    odd = replace(config, ffn_size=130)
    with pytest.raises(ConfigError, match=r"65 inputs of .*down_proj.weight, an odd number"):
        refuse_cut_groups(part_of(odd, 2, None, torch.bfloat16))
    refuse_cut_groups(part_of(odd, 2, None, torch.float32))
