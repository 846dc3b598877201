"""YAML that is read: what is refused, in one line."""

import pytest
import yaml

from fqvae.cli import main
from fqvae.models import ConfigError
from fqvae.runs.yaml_files import DEPTH, load_yaml


def test_ordinary_content_is_pyyamls():
    text = "a: 1\nb: {c: [1, 2.5, x, null, true]}\n? e f\n: |\n  two\n  lines\n"
    assert load_yaml(text) == load_yaml(text.encode()) == yaml.safe_load(text)
    assert load_yaml("[" * DEPTH + "]" * DEPTH) == yaml.safe_load("[" * DEPTH + "]" * DEPTH)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "line 3: 'c' is there twice"),
        ("[" * 3000 + "]" * 3000, "line 1: it must be nested at most 20 deep, but is deeper"),
        ("{a: " * 3000 + "1" + "}" * 3000, "nested at most 20 deep"),
        ("- " * 3000 + "1", "nested at most 20 deep"),
        ("[" * (DEPTH + 1) + "]" * (DEPTH + 1), "nested at most 20 deep"),
        ("a: [", "it is not YAML"),
        ("a: 2020-13-40", "it is not YAML"),
        ("? [1]\n: 2\n", "it is not YAML"),
        (b"\xff\xfe\xfa", "it is not YAML"),
        ("!!python/object:os.system {}", "it is not YAML"),
    ],
)
def test_what_is_refused(text, words):
    with pytest.raises(ConfigError, match=words) as error:
        load_yaml(text)
    assert "\n" not in str(error.value)


def test_a_sweep_file_nested_3000_deep(tmp_path, capsys):
    (tmp_path / "deep.yaml").write_text(
        "preset: smoke\nseeds: [0]\nruns: " + "{a: " * 3000 + "1" + "}" * 3000
    )
    assert main(["sweep", str(tmp_path / "deep.yaml"), "--dry-run"]) == 1
    error = capsys.readouterr().err
    assert "deep.yaml: line 3: it must be nested at most 20 deep" in error and error.count("\n") == 1
