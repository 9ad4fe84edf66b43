"""One line: where, what was found, what is allowed, the cure."""

from torchfpn.errors import DataError, FPNError, nearest


def test_the_line_has_its_parts_in_order():
    error = DataError("value 12", file="labels/07.png", field="row 3", allowed="classes 0..10", hint="see fpn check")
    assert str(error) == "labels/07.png: row 3: value 12; expected classes 0..10; see fpn check"
    assert (error.file, error.found, error.hint) == ("labels/07.png", "value 12", "see fpn check")


def test_names_with_newlines_stay_on_one_line():
    assert str(FPNError("bad", file="a\nb\t.png")) == "a b .png: bad"


def test_nearest_names_what_was_meant_or_what_is_known():
    assert nearest("resnet_18", ["resnet18", "swin"]) == 'did you mean "resnet18"?'
    assert nearest("zzz", ["b", "a"]) == "known: a, b"
