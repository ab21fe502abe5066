import copy
import pickle

import pytest

from zipline_sdk import Reference, ReferenceInvalidError

TEXT = "zl1.c2VjcmV0"


def test_the_text_travels_and_repr_keeps_it_secret():
    reference = Reference(TEXT, put_at="app.py:3 in main")
    assert str(reference) == TEXT and f"{reference}" == TEXT
    assert "c2VjcmV0" not in repr(reference) and "app.py:3" in repr(reference)


def test_a_pickle_keeps_text_and_call_site():
    reference = Reference(TEXT, put_at="app.py:3 in main")
    for other in (pickle.loads(pickle.dumps(reference)), copy.copy(reference), copy.deepcopy(reference)):
        assert other == reference and hash(other) == hash(reference) and other.put_at == "app.py:3 in main"
    assert Reference(TEXT) == reference and reference != TEXT and Reference("zl1.x") != reference


@pytest.mark.parametrize("text", ["", "zl1.", "zl2.abc", "zl1.a b", "zl1.a\n", "zl1." + "a" * 1021, "http://x"])
def test_what_is_no_reference(text):
    with pytest.raises(ReferenceInvalidError, match="is no reference") as caught:
        Reference(text)
    assert text == "" or text not in str(caught.value)


@pytest.mark.parametrize("wrong", [b"zl1.abc", 5, None])
def test_what_is_no_text(wrong):
    with pytest.raises(TypeError):
        Reference(wrong)
