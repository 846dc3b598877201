"""benchmarks/adoption: its file of results, its table and its command on a small case; each real case."""

import dataclasses
import json

import pytest
import torch
from adoption import __main__, steps, table
from adoption.case import Case, Kind, Task
from adoption.data import padded_series
from adoption.registry import CASES
from adoption.results import Results
from adoption.series import CHANNELS, QUANTIZERS, Autoencoder, masked_mse
from adoption.train import train
from torch import nn

LINES = ("import one", "import two")


def make_line(kind):
    """y = 2 x, by a line that starts at 0 and has a penalty where the kind is "ours"."""
    model = nn.Linear(1, 1)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    x = torch.linspace(-1, 1, 40).unsqueeze(1)

    def loss(batch, progress):
        assert 0 <= progress < 1
        own = model.weight.abs().sum() if kind == "ours" else torch.zeros(())
        return (model(batch) - 2 * batch).square().mean(), own

    def evaluate(data):
        assert not model.training
        return (model(data) - 2 * data).square().mean().item(), 3.0

    return Task(model, x, x, loss, evaluate)


LINE = Case(
    "line",
    {"theirs": Kind("none", 5), "ours": Kind("penalty", 4, LINES), "third": Kind("none again", 5, LINES[:1])},
    make_line,
    steps=300,
    batch_size=40,
    learning_rate=0.05,
)


@pytest.fixture
def command(tmp_path):
    """The benchmark's command with two cases, one of which needs a package that does not exist."""
    cases = {"line": LINE, "other": dataclasses.replace(LINE, title="other", packages=("no_such_package",))}

    def run(*arguments):
        assert __main__.main([*arguments, "--results", str(tmp_path / "results.json")], cases) == 0
        return Results(tmp_path / "results.json")

    threads = torch.get_num_threads()
    yield run
    torch.set_num_threads(threads)


def test_a_run_trains_by_both_losses():
    """Without the penalty the line is found; |w| as one leaves a loss of 1 / (4 mean(x**2))."""
    found = train(LINE, "theirs", 0)
    assert found["training"] < 0.01 and found["held_out"] < 1e-3 and found["codes"] == 3.0
    x = torch.linspace(-1, 1, 40)
    expected = 1 / (4 * x.square().mean().item())
    # The batches are drawn with repetition, so the weight sways about this.
    assert train(LINE, "ours", 0)["held_out"] == pytest.approx(expected, rel=0.2)
    assert train(LINE, "theirs", 1) != found == train(LINE, "theirs", 0)


def test_what_is_there_is_not_trained_again(command, monkeypatch):
    """An interrupted command goes on where it was; --again trains what it names, and nothing else."""
    done = []

    def trains(case, kind, seed):
        if len(done) == stop:
            raise KeyboardInterrupt
        done.append((kind, seed))
        return {"training": float(len(done)), "held_out": 0.5, "codes": 3.0}

    monkeypatch.setattr(__main__, "train", trains)
    stop = 4
    with pytest.raises(KeyboardInterrupt):
        command("--seeds", "0", "1")
    assert done == [("theirs", 0), ("ours", 0), ("third", 0), ("theirs", 1)]
    stop = 99
    results = command("--seeds", "0", "1")
    assert done[4:] == [("ours", 1), ("third", 1)]
    assert [results.runs("line", "theirs")[seed]["training"] for seed in (0, 1)] == [1.0, 4.0]
    command("line", "--kinds", "ours", "--seeds", "1", "--again")
    assert done[6:] == [("ours", 1)]
    assert {seed: run["training"] for seed, run in results.runs("line", "ours").items()} == {0: 2.0, 1: 7.0}
    command("--seeds", "0", "1")
    assert len(done) == 7 and results.runs("other", "ours") == {}


def test_a_case_without_its_package_is_left_out(command, capsys):
    command("other")
    assert capsys.readouterr().out == "other is left out: no_such_package is not installed\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lin"], "CASE was 'lin'; it may be one of line, other"),
        (["line", "--kinds", "mine"], "KIND was 'mine'; it may be one of ours, theirs, third"),
    ],
)
def test_names_that_do_not_exist(command, arguments, message, capsys):
    with pytest.raises(SystemExit):
        command(*arguments)
    assert message in capsys.readouterr().err


def test_kinds_take_steps_in_turn(command, monkeypatch):
    """A kind that takes three times as long as the first is 1/3 times as fast, on a made-up clock."""
    clock, order = [0.0], []
    seconds = {"theirs": 0.01, "ours": 0.002, "third": 0.03}

    def stepper(case, task, seed):
        kind = list(LINE.kinds)[len(order) % 3]
        order.append(kind)
        warm = [0]

        def step(progress):
            order.append(kind)
            warm[0] += 1
            clock[0] += 5.0 if warm[0] <= steps.WARM_UP else seconds[kind]

        return step

    monkeypatch.setattr(steps, "stepper", stepper)
    monkeypatch.setattr(steps.time, "perf_counter", lambda: clock[0])
    results = command("line", "--time", "--seconds", "1")
    assert order == list(LINE.kinds) * (len(order) // 3)
    held = results.read()
    times = held["times"]["line"]
    assert {kind: found["milliseconds"] for kind, found in times.items()} == pytest.approx(
        {"theirs": 10, "ours": 2, "third": 30}
    )
    assert [found["times_as_fast"] for found in times.values()] == pytest.approx([1, 5, 1 / 3])
    assert 23 <= times["ours"]["rounds"] <= 25  # 42 ms a round, for a second
    assert held["machine"]["torch"] == torch.__version__ and held["machine"]["threads"] == "1"


def test_times_of_another_machine_go(tmp_path):
    results = Results(tmp_path / "results.json")
    results.add_run("line", "ours", 0, {"training": 1.0})
    results.add_times("line", {"ours": {"milliseconds": 1.0}}, {"processor": "old"})
    results.add_times("other", {"ours": {"milliseconds": 2.0}}, {"processor": "old"})
    assert results.read()["times"].keys() == {"line", "other"}
    results.add_times("other", {"ours": {"milliseconds": 3.0}}, {"processor": "new"})
    held = results.read()
    assert (
        held["times"] == {"other": {"ours": {"milliseconds": 3.0}}} and held["machine"]["processor"] == "new"
    )
    assert held["losses"] == {"line/ours/0": {"training": 1.0}}


RESULTS = {
    "losses": {
        "line/theirs/0": {"training": 0.1, "held_out": 0.25, "codes": 5.0},
        "line/theirs/1": {"training": 0.3, "held_out": 0.25, "codes": 4.0},
        "line/ours/0": {"training": 0.01234, "held_out": 123.4, "codes": 4.0},
    },
    "times": {
        "line": {
            "theirs": {"milliseconds": 12.34, "times_as_fast": 1.0, "rounds": 9},
            "ours": {"milliseconds": 6.17, "times_as_fast": 2.0, "rounds": 9},
        }
    },
}
TABLE = """\
| model | quantizer | loss in training | loss in eval() | codes in use | ms a step | changed lines | seeds |
|---|---|---:|---:|---:|---:|---:|---:|
| line | none | 0.2 (0.1 to 0.3) | 0.25 | 4.5 (4 to 5) of 5 | 12.3 |  | 2 |
| line | penalty | 0.0123 | 123 | 4 of 4 | 6.2 (2.00 x) | 2 | 1 |
"""


def test_the_table_between_the_markers(command, tmp_path, capsys):
    machine = __main__.describe_machine(torch.device("cpu"), None)
    (tmp_path / "results.json").write_text(json.dumps(RESULTS | {"machine": machine}))
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- adoption:begin -->\nold\n<!-- adoption:end -->\nafter\n")
    for _ in range(2):  # the second time changes nothing
        command("--write", "--page", str(page))
        begin, rest = page.read_text().split("<!-- adoption:begin -->\n")
        written, end = rest.split("\n<!-- adoption:end -->\n")
        assert (begin, end) == ("before\n", "after\n")
        assert written.startswith(TABLE) and f"torch {torch.__version__}" in written
    command("--table")
    assert capsys.readouterr().out == written + "\n"
    page.write_text("no markers\n")
    with pytest.raises(SystemExit):
        command("--write", "--page", str(page))
    assert "page.md: it has no place marked <!-- adoption:begin -->" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore")  # other packages' own
@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name in CASES for kind in CASES[name].kinds])
def test_every_case_trains(name, kind):
    """Each model takes two steps with each of its quantizers, and is evaluated."""
    case = dataclasses.replace(CASES[name], steps=2)
    if case.missing():
        pytest.skip(f"needs {', '.join(case.missing())}")
    found = train(case, kind, 0)
    assert 0 < found["training"] < 10 and 0 < found["held_out"] < 10
    assert 1 <= found["codes"] <= case.kinds[kind].codes


def test_every_case_says_what_changes():
    for case in CASES.values():
        first, *others = case.kinds.values()
        assert others and not first.changed and all(kind.changed for kind in others)
        assert "ours" in case.kinds


def test_padded_series():
    data = padded_series(50, 40, CHANNELS)
    valid = data[..., -1]
    assert set(valid.unique().tolist()) == {0.0, 1.0}
    lengths = valid.sum(1)
    assert lengths.min() >= 10 and lengths.max() <= 40 and lengths.unique().numel() > 10
    assert torch.equal(valid, (torch.arange(40) < lengths.unsqueeze(1)).float())
    assert data[..., :-1][valid == 0].abs().max() == 0
    assert data[..., :-1][valid == 1].std() > 0.3


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_padding_changes_nothing(kind):
    """Series of different lengths, together and padded with anything, come out as each does alone."""
    torch.manual_seed(0)
    model = Autoencoder(QUANTIZERS[kind]()).eval()
    data = padded_series(4, 20, CHANNELS)
    series, mask = data[..., :CHANNELS], data[..., CHANNELS].bool()
    padded = torch.where(mask.unsqueeze(-1), series, 7.0)
    found, indices, loss = model(padded, mask)
    assert loss > 0
    torch.testing.assert_close(model(series, mask)[2], loss)
    errors = []
    for place, length in enumerate(mask.sum(1).tolist()):
        alone = series[place : place + 1, :length]
        each, each_indices, _ = model(alone, mask[place : place + 1, :length])
        torch.testing.assert_close(each[0], found[place, :length])
        assert torch.equal(each_indices[0], indices[place, :length])
        errors.append((each - alone).square().mean(-1).flatten())
    torch.testing.assert_close(masked_mse(found, padded, mask), torch.cat(errors).mean())


def test_the_page_has_the_table_of_the_results_on_record():
    page = __main__.ROOT / "docs" / "replace.md"
    held = Results(__main__.ROOT / "benchmarks" / "results" / "adoption.json")
    assert table.table(CASES, held) in page.read_text(), "python -m adoption --write puts it there"
