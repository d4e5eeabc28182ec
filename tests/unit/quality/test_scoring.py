from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from novacron.quality import scoring
from novacron.quality.document import Document
from novacron.quality.scoring import compare_logits, score_document

VOCAB = 37


def logits(seed: int, rows: int = 11, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(seed))


def test_measures_are_those_of_torch() -> None:
    reference, variant = logits(1), logits(1) + 0.3 * logits(2)
    tokens = torch.arange(11)
    found = compare_logits(reference, variant, tokens)
    log_p, log_q = (F.log_softmax(x.double(), -1) for x in (reference, variant))
    expected_kl = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)
    torch.testing.assert_close(found.kl, expected_kl)
    torch.testing.assert_close(
        found.reference_nll, F.cross_entropy(reference.double(), tokens, reduction="none")
    )
    torch.testing.assert_close(
        found.variant_nll, F.cross_entropy(variant.double(), tokens, reduction="none")
    )
    assert found.agrees.tolist() == (reference.argmax(-1) == variant.argmax(-1)).tolist()
    assert 0 < sum(found.agrees.tolist()) < 11
    torch.testing.assert_close(
        found.logit_error, (reference.double() - variant.double()).abs().max(-1).values
    )


def test_a_variant_that_is_the_reference_loses_nothing() -> None:
    found = compare_logits(logits(3), logits(3), torch.zeros(11, dtype=torch.int64))
    assert found.kl.tolist() == [0.0] * 11
    assert all(found.agrees.tolist())
    assert found.logit_error.tolist() == [0.0] * 11


def test_a_constant_added_to_logits_changes_no_probability() -> None:
    found = compare_logits(logits(4), logits(4) + 2, torch.arange(11))
    assert found.kl.max() < 1e-12
    torch.testing.assert_close(found.reference_nll, found.variant_nll, atol=1e-6, rtol=0)
    torch.testing.assert_close(
        found.logit_error, torch.full((11,), 2.0).double(), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("values_at_once", [1, 4 * VOCAB, 1000 * VOCAB])
def test_a_document_is_scored_alike_in_pieces(
    values_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = Document(tuple(range(1, 15)), 3)  # 11 judged tokens
    reference, variant = logits(5), logits(6)
    whole = compare_logits(reference, variant, torch.tensor(document.token_ids[3:]))
    monkeypatch.setattr(scoring, "_VALUES_AT_ONCE", values_at_once)
    asked: list[int] = []

    def at(part: slice) -> Tensor:
        asked.append(part.stop - part.start)
        return reference[part]

    found = score_document(document, VOCAB, at, lambda part: variant[part])
    assert max(asked) <= max(1, values_at_once // VOCAB)
    assert sum(asked) == document.num_scored == 11
    assert found.kl == pytest.approx(whole.kl.tolist(), rel=1e-12)
    assert found.agrees == tuple(whole.agrees.tolist())
    assert found.first_scored == 3
