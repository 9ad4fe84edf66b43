"""YAML of strangers: plain values, or one line that says what is wrong."""

import pytest

from torchfpn.errors import ConfigError
from torchfpn.io.yaml_json import read_yaml


def test_plain_values(tmp_path):
    (tmp_path / "a.yaml").write_text("\ufeffa: [1, 2.5, true, null, 'x']\nb: {c: ä}\n", encoding="utf-8")
    assert read_yaml(tmp_path / "a.yaml") == {"a": [1, 2.5, True, None, "x"], "b": {"c": "ä"}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2\n", 'line 2: the key "a" twice'),
        ("a: [1, 2\nb: 3\n", "line 2"),
        ("a: &x [1]\nb: *x\n", "line 2: the alias *x"),
        ("a: !!python/name:os.system\n", "line 1"),
        ("[" * 100, "nested too deeply"),
        ("a: 2024-99-99", "not plain YAML"),
        ("? [a, b]\n: 1", "not plain YAML"),
        ("a: \x01", "not plain YAML"),
    ],
)
def test_what_is_refused(tmp_path, text, said):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_yaml(tmp_path / "a.yaml")
    assert said in str(caught.value)
    assert str(tmp_path / "a.yaml") in str(caught.value)


def test_not_utf8_and_missing(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"a: \xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_yaml(tmp_path / "a.yaml")
    with pytest.raises(ConfigError, match="cannot be opened"):
        read_yaml(tmp_path / "b.yaml")
