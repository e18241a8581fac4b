"""Implementations that cheat or break must end as a status with a reason, and cost nobody else their record."""

from __future__ import annotations

import pytest

CASE = "toy.product/square/n64"

WRONG = """
def declare(setup):
    return implementation("toy.product", technique="plain", kind="optimized")(setup)

@declare
def one_wrong_element(w, shape):
    def call(x):
        y = x @ w
        y[3, 5] += 1.0
        return y
    return call

@declare
def slightly_wrong_everywhere(w, shape):
    return lambda x: (x @ w) * 1.0001

@declare
def wrong_shape(w, shape):
    return lambda x: (x @ w)[:-1]

@declare
def broadcastable_shape(w, shape):
    return lambda x: (x @ w)[None]

@declare
def not_a_number(w, shape):
    return lambda x: (x @ w) * float("nan")

@declare
def nothing(w, shape):
    return lambda x: None

@declare
def two_results(w, shape):
    return lambda x: (x @ w, x)

@declare
def unwritten(w, shape):
    def call(x):
        y = torch.empty_like(x)
        y[:-1] = (x @ w)[:-1]
        return y
    return call

@declare
def changes_its_input(w, shape):
    def call(x):
        y = x @ w
        x[0, 0] += 1
        return y
    return call

@declare
def changes_its_weights(w, shape):
    def call(x):
        y = x @ w
        w[0, 0] *= 2
        return y
    return call

@declare
def cached_by_address(w, shape):
    known = {}
    def call(x):
        if x.data_ptr() not in known:
            known[x.data_ptr()] = x @ w
        return known[x.data_ptr()]
    return call

@declare
def right_at_first(w, shape):
    calls = []
    def call(x):
        calls.append(1)
        return x @ w if len(calls) < 6 else torch.zeros_like(x)
    return call

@declare
def finished_later(w, shape):
    def call(x):
        y = torch.zeros_like(x)
        def work():
            time.sleep(0.02)
            y.copy_(x @ w)
        threading.Thread(target=work).start()
        return y
    return call

@declare
def half_precision(w, shape):
    return lambda x: (x.bfloat16() @ w.bfloat16()).float()

@declare
def raises(w, shape):
    raise RuntimeError("no such kernel")

@declare
def raises_in_call(w, shape):
    def call(x):
        raise ValueError("bad stride")
    return call

@declare
def no_callable(w, shape):
    return 3

@declare
def exits(w, shape):
    sys.exit(3)

@declare
def copies_its_inputs(w, shape):
    return Prepared(lambda x: x @ w, pack=lambda x: x.clone())

@declare
def resizes_its_input(w, shape):
    def call(x):
        y = x @ w
        x.resize_(0)
        return y
    return call

@declare
def replaces_its_input(w, shape):
    def call(x):
        y = x @ w
        x.data = torch.zeros(1)
        return y
    return call

@declare
def changes_the_threads(w, shape):
    def call(x):
        torch.set_num_threads(torch.get_num_threads() + 1)
        return x @ w
    return call

@declare
def stops_gradients(w, shape):
    torch.set_grad_enabled(False)
    return lambda x: x @ w

@declare
def another_dtype(w, shape):
    return lambda x: (x @ w).double()

def later(what):
    def setup(w, shape):
        calls = []
        def call(x):
            calls.append(1)
            if len(calls) > 6:
                what()
            return x @ w
        return call
    return setup

class Wordless(Exception):
    def __str__(self):
        raise RuntimeError("no words")

def raise_(error):
    raise error

declare_as = lambda name, setup: implementation("toy.product", technique="plain", kind="optimized", name=name)(setup)
declare_as("exits_later", later(lambda: sys.exit(1)))
declare_as("interrupts", later(lambda: raise_(KeyboardInterrupt())))
declare_as("wordless", later(lambda: raise_(Wordless())))

@implementation("toy.product", technique="plain", kind="optimized", supports=lambda shape: shape.nothing)
def asks_for_nothing(w, shape):
    return lambda x: x @ w

@declare
def honest(w, shape):
    return lambda x: torch.mm(x, w)
"""

VERDICTS = {
    "one_wrong_element": ("incorrect", "output"),
    "slightly_wrong_everywhere": ("incorrect", "Frobenius"),
    "wrong_shape": ("incorrect", "shape [63, 64], expected [64, 64]"),
    "broadcastable_shape": ("incorrect", "shape"),
    "not_a_number": ("incorrect", "output holds NaN in "),
    "nothing": ("incorrect", "no tensor"),
    "two_results": ("incorrect", "returned 0, 1"),
    "unwritten": ("incorrect", ""),
    "changes_its_input": ("incorrect", "changed its input"),
    "changes_its_weights": ("incorrect", "changed its weights"),
    "cached_by_address": ("incorrect", ""),
    "right_at_first": ("incorrect", ""),
    "resizes_its_input": ("incorrect", "replaced or resized its input"),
    "replaces_its_input": ("incorrect", "replaced or resized its input"),
    "changes_the_threads": ("incorrect", "changed torch's number of threads"),
    "stops_gradients": ("incorrect", "changed torch's gradient mode"),
    "another_dtype": ("incorrect", "output is float64, expected float32"),
    "exits_later": ("error", "called exit(1)"),
    "interrupts": ("error", "KeyboardInterrupt"),
    "wordless": ("error", "Wordless"),
    "asks_for_nothing": ("unavailable", "asking what it supports raised AttributeError"),
    "finished_later": ("incorrect", ""),
    "half_precision": ("incorrect", "limit"),
    "raises": ("error", "no such kernel"),
    "raises_in_call": ("error", "bad stride"),
    "no_callable": ("error", "neither a callable"),
    "exits": ("error", "exit(3)"),
    "copies_its_inputs": ("error", "pack must hand on"),
}


def test_wrong_contenders_are_named_and_the_others_measured(checkout):
    done, run = checkout.measure("--impl", checkout.implementation(WRONG), "--case", CASE)
    records = {r.implementation: r for r in run.records if r.case == CASE}
    found = {name: (records[name].status, records[name].reason) for name in VERDICTS}
    wrong = {n: f for n, f in found.items() if f[0] != VERDICTS[n][0] or VERDICTS[n][1] not in (f[1] or "")}
    assert not wrong
    assert not any(records[name].figures for name in VERDICTS)
    for name in ("reference", "transposed", "honest"):
        assert records[name].status == "passed", records[name].reason
        assert records[name].value("latency") > 0
    assert done.returncode == 1
    assert "INCORRECT" in done.stdout


DEADLY = """
def declare(setup):
    return implementation("toy.product", technique="plain", kind="optimized")(setup)

@declare
def hangs(w, shape):
    def call(x):
        while True:
            time.sleep(0.1)
    return call

@declare
def kills_its_process(w, shape):
    os._exit(7)

@declare
def segfault(w, shape):
    import ctypes
    return lambda x: ctypes.string_at(0)

@declare
def wants_all_memory(w, shape):
    return lambda x: torch.ones(2**44)

@declare
def dies_while_timed(w, shape):
    calls = []
    def call(x):
        calls.append(1)
        if len(calls) > 8:
            os.abort()
        return x @ w
    return call

@declare
def honest(w, shape):
    return lambda x: torch.mm(x, w)
"""


def test_a_dead_worker_costs_one_contender_not_the_run(checkout):
    done, run = checkout.measure("--impl", checkout.implementation(DEADLY), "--case", CASE, "--timeout", "3")
    found = {r.implementation: (r.status, r.reason) for r in run.records if r.case == CASE}
    assert found["hangs"][0] == "timeout"
    assert found["kills_its_process"] == ("crashed", "its process ended with exit status 7")
    assert found["segfault"][0] == "crashed" and "SIGSEGV" in found["segfault"][1]
    assert found["wants_all_memory"][0] == "oom"
    assert found["dies_while_timed"][0] == "crashed" and "SIGABRT" in found["dies_while_timed"][1]
    assert {name: found[name][0] for name in ("reference", "transposed", "honest")} == dict.fromkeys(
        ("reference", "transposed", "honest"), "passed"
    )
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("import nothing_of_this_name", "No module named 'nothing_of_this_name'"),
        ("def (:", "SyntaxError"),
        ("x = 1", "declares no implementation"),
        ('implementation("toy.prodct", technique="plain", kind="optimized")(lambda w, s: None)', "toy.product"),
        ("os._exit(3)", "exit status 3"),
        ("while True: pass", "no answer for 8 s"),
        ('implementation("toy.product", technique="plain", kind="fast")', "kind 'fast'"),
    ],
)
def test_a_file_that_does_not_load_is_a_sentence_and_the_rest_is_measured(checkout, body, words):
    done, run = checkout.measure("--impl", checkout.implementation(body), "--case", CASE, "--timeout", "8")
    assert words in done.stderr and "problem: IMPL=" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 1
    assert {r.status for r in run.records if r.implementation != "compiled"} == {"passed"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--study", "tyo"), "did you mean toy"),
        (("--tier", "smok"), "did you mean smoke"),
        (("--device", "tpu"), "cpu or cuda"),
        (("--case", "toy.product/square/n65"), "toy.product/square/n64"),
        (("--resume", "never"), "no run"),
    ],
)
def test_unknown_words_name_the_nearest_and_exit_2(checkout, words, said):
    done = checkout.python("-m", "harness.run", *words)
    assert done.returncode == 2
    assert said in done.stderr and "Traceback" not in done.stderr
    assert not list(checkout.folder.glob("runs/*/run.jsonl"))
