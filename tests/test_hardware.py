"""Which precision a machine gets: measured, Intel's AVX-512 is slower in bfloat16 without AMX."""

import pytest
import torch

from lucir_edu import hardware

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("amx", "avx", "intel", "chosen"),
    [
        (True, True, True, "bfloat16"),
        (False, True, True, "float32"),
        (False, True, False, "bfloat16"),
        (False, False, False, "float32"),
        (False, False, True, "float32"),
    ],
)
def test_a_processor_computes_in_bfloat16_only_where_that_is_faster(
    monkeypatch, amx, avx, intel, chosen
):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    monkeypatch.setattr(hardware, "_is_intel", lambda: intel)
    assert hardware.pick_precision("auto", CPU) == chosen
    assert hardware.pick_precision("bfloat16", CPU) == "bfloat16"
    assert hardware.pick_precision("float32", CPU) == "float32"
