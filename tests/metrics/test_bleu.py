from __future__ import annotations

import pytest
import sacrebleu

from lit_aigc.errors import InputError
from lit_aigc.metrics.bleu import bleu

GERMAN = ["Ein Hund rennt über die Wiese.", "Zwei Männer spielen Fußball, im Regen.", "Eine Frau liest ein Buch."]
MADE = ["Ein Hund läuft über die Wiese.", "Zwei Männer spielen Ball im Regen.", "Eine Frau liest."]


def test_equals_sacrebleu():
    values, protocol = bleu(MADE, GERMAN)
    assert values["bleu"] == pytest.approx(sacrebleu.corpus_bleu(MADE, [GERMAN]).score, abs=1e-12)
    assert 10 < values["bleu"] < 90
    assert "tok:13a" in protocol["signature"] and "nrefs:1" in protocol["signature"]
    assert protocol["sentences"] == 3 and protocol["brevity_penalty"] < 1


def test_the_ends_of_the_scale():
    assert bleu(GERMAN, GERMAN)[0]["bleu"] == pytest.approx(100)
    assert bleu(["x y z w"] * 3, GERMAN)[0]["bleu"] == 0


@pytest.mark.parametrize(("made", "real"), [([], []), (["a"], []), (["a"], ["a", "b"])])
def test_what_has_no_pairs_is_refused(made, real):
    with pytest.raises(InputError, match="a reference for each"):
        bleu(made, real)
