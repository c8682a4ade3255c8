"""The checks say what is wrong with each wrong submission, and let right ones through."""

import _thread
import functools
import inspect
import itertools
import os
import random
import re
import signal
import sys
import threading
import time

import nbformat
import numpy as np
import psutil
import pytest
import torch
import torch.nn.functional as F
from nbclient import NotebookClient
from torch import nn

from lucir_edu import losses
from lucir_edu.lab import checks, grading, sandbox
from tests.wrong_submissions import RIGHT, WRONG

EXERCISES = list(checks.EXERCISES.values())
SOLUTIONS = ("F.normalize", "torch.", "@", "**", "sqrt(", ".mean(", "dim=", ".T", "np.", " / ")


def named(exercise):
    return exercise.name


@functools.cache
def report(submission):
    lines, right = checks.EXERCISES[submission.exercise].report(submission.function)
    return "\n".join(lines), right


def ours(text):
    """A report without what it quotes: the learner's code, exceptions, names and prints."""
    text = text.split("  it printed:")[0]
    text = re.sub(r"raises .*|gives the text .*|cannot be computed: .*", "", text)
    return re.sub(r"\n      (in line|when called with) .*", "", text)


def working_threads():
    """Of the interpreter's own account: ``threading`` loses count when a join is interrupted."""
    return set(sys._current_frames())


def soon(condition):
    """Whether it comes true within a second."""
    end = time.monotonic() + 1
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


# ---- Wrong and right submissions --------------------------------------------------------------


@pytest.mark.parametrize("submission", WRONG, ids=lambda s: s.id)
def test_a_wrong_submission_is_told_what_is_wrong(submission):
    text, right = report(submission)
    first, *rest = text.split("\n")
    assert not right
    assert first == f"{submission.exercise}: not yet right; the package's own stands in"
    assert submission.says in "\n".join(line for line in rest if "✓" not in line)


def test_the_corpus_has_enough_of_each_exercise():
    for name in checks.EXERCISES:
        assert sum(s.exercise == name for s in WRONG) >= 5, name
        assert sum(s.exercise == name for s in RIGHT) >= 2, name
    assert {s.exercise for s in WRONG + RIGHT} == set(checks.EXERCISES)


@pytest.mark.parametrize("exercise", EXERCISES, ids=named)
def test_different_mistakes_of_an_exercise_get_different_messages(exercise):
    submissions = [s for s in WRONG if s.exercise == exercise.name]
    texts = {report(s)[0].replace(s.function.__name__, "") for s in submissions}
    assert len(texts) == len(submissions)
    assert len({s.says for s in submissions}) == len(submissions)


@pytest.mark.parametrize("submission", WRONG, ids=lambda s: s.id)
def test_no_message_gives_the_solution_away(submission):
    text = ours(report(submission)[0])
    assert not [piece for piece in SOLUTIONS if piece in text]
    assert "!" not in text


@pytest.mark.parametrize("exercise", EXERCISES, ids=named)
def test_no_mistake_or_title_gives_the_solution_away(exercise):
    titles = [behaviour.title for behaviour in exercise.behaviours()]
    for words in [*exercise.mistakes, *titles]:
        assert not [piece for piece in SOLUTIONS if piece in words], words
        assert not words.endswith(".") and "!" not in words, words
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("submission", RIGHT, ids=lambda s: s.id)
def test_a_right_submission_passes_and_is_given_back(submission, capsys):
    exercise = checks.EXERCISES[submission.exercise]
    assert exercise(submission.function) is submission.function
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{exercise.name}: right"
    assert lines[1:] == [f"  ✓ {behaviour.title}" for behaviour in exercise.behaviours()]
    assert exercise.report(submission.function)[0] == lines, "the same report every time"


# ---- The stand-in -----------------------------------------------------------------------------


def stub(*arguments):
    raise NotImplementedError  # your code here


class Stub(nn.Module):
    def __init__(self, feature_dim, num_classes):
        super().__init__()
        raise NotImplementedError  # your code here

    def forward(self, features):
        raise NotImplementedError  # your code here


class HalfStub(nn.Module):
    def __init__(self, feature_dim, num_classes, eta=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_classes, feature_dim))
        self.eta = nn.Parameter(torch.tensor(eta))

    def forward(self, features):
        raise NotImplementedError  # your code here


@pytest.mark.parametrize("exercise", EXERCISES, ids=named)
def test_an_unsolved_stub_is_replaced_and_that_is_said_in_a_line(exercise, capsys):
    assert exercise(Stub if exercise.name == "CosineHead" else stub) is exercise.stand_in
    said = f"{exercise.name}: not written yet; the package's own stands in\n"
    assert capsys.readouterr().out == said


@pytest.mark.parametrize(
    ("eta", "scale"),
    [(1.0, "✓ the scale starts at 1"), (3.0, "✗ the scale starts at 1: off by up to 2")],
)
def test_of_a_half_written_head_is_said_what_is_right_and_what_is_missing(eta, scale, capsys):
    class Head(HalfStub):
        def __init__(self, feature_dim, num_classes):
            super().__init__(feature_dim, num_classes, eta)

    assert checks.CosineHead(Head) is checks.CosineHead.stand_in
    assert capsys.readouterr().out.splitlines() == [
        "CosineHead: not yet right; the package's own stands in",
        "  ✓ its parameters are the embeddings (C, d) and one scale",
        f"  {scale}",
        "  ✓ the embeddings start random",
        "  ✗ gives a tensor of shape (n, C): `forward` is not written yet",
    ]


def test_a_function_that_is_written_but_calls_one_that_is_not_hears_so(capsys):
    def hardest_negatives(cosines, num_old, top_k):
        raise NotImplementedError

    def margin_ranking(cosines, targets, num_old, margin=0.5, top_k=2):
        return hardest_negatives(cosines, num_old, top_k).mean()

    checks.margin_ranking(margin_ranking)
    first, *others = capsys.readouterr().out.splitlines()
    assert first == "margin_ranking: not yet right; the package's own stands in"
    assert "`hardest_negatives` is not written yet" in " ".join(others)


@pytest.mark.parametrize("exercise", EXERCISES, ids=named)
def test_the_stand_in_given_again_is_noticed(exercise, capsys):
    assert exercise(exercise(stub)) is exercise.stand_in
    assert "run the cell with your own first" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("exercise", EXERCISES, ids=named)
def test_the_stand_in_solves_the_exercise(exercise):
    if isinstance(exercise.stand_in, type):
        own = type("Own", (exercise.stand_in,), {})
    else:
        own = lambda *arguments: exercise.stand_in(*arguments)  # noqa: E731
    lines, right = exercise.report(own)
    assert right, lines


def imported_inside(one, two):
    import lucir_edu

    return lucir_edu.losses.less_forget(one, two)


def one_or_the_other(one, two):
    return one_or_the_other(one, two) if one is two else losses.less_forget(one, two)


class Caller:
    own = staticmethod(losses.less_forget)

    def __call__(self, one, two):
        return self.own(one, two)


def enclosed():
    own = losses.less_forget
    return lambda one, two: own(one, two)


@pytest.mark.parametrize(
    "function",
    [
        imported_inside, one_or_the_other, Caller(), enclosed(),
        lambda one, two: checks.less_forget.stand_in(one, two),
        lambda one, two, own=losses.less_forget: own(one, two),
        functools.partial(losses.less_forget),
        lambda one, two: getattr(losses, "less_" + "forget")(one, two),
        lambda one, two: imported_inside(one, two),
    ],
    ids=["imported inside", "in a circle", "an object", "enclosed", "the stand-in", "a default",
         "partial", "by name", "a helper"],
)  # fmt: skip
def test_where_the_package_s_own_does_it_it_is_said_too(function):
    lines, right = checks.less_forget.report(function)
    assert right and lines[-1] == "  – the package's own does it: `losses.less_forget`"


def test_a_class_above_that_is_the_package_s_own_is_said_too():
    lines, right = checks.CosineHead.report(type("Own", (checks.CosineHead.stand_in,), {}))
    assert right and lines[-1] == "  – the package's own does it: `model.CosineHead.__init__`"


def test_what_is_said_fits_the_window_and_loses_nothing(capsys):
    def unfit(features, old_features):
        return (1 - (features * old_features).sum(dim=1)).mean()

    checks.less_forget(unfit)
    printed = capsys.readouterr().out
    whole = checks.less_forget.report(unfit)[0]
    assert max(map(len, whole)) > 100 >= max(map(len, printed.splitlines()))
    assert printed.split() == " ".join(whole).split()


@pytest.mark.parametrize("given", [None, 3, "less_forget", torch.zeros(2)])
def test_what_is_no_function_is_said_so(given, capsys):
    assert checks.less_forget(given) is checks.less_forget.stand_in
    assert "less_forget: needs a function, not" in capsys.readouterr().out


def test_the_numbers_of_the_softmax_ceiling():
    ceilings = [checks.softmax_ceiling.stand_in(classes, 1) for classes in (10, 50, 100)]
    assert ceilings == pytest.approx([0.4509, 0.1310, 0.0695], abs=5e-5)


# ---- Mistakes ---------------------------------------------------------------------------------


def as_submission(exercise, mistake):
    """The mistake of a learner; that of a head becomes a head."""
    if exercise.name != "CosineHead":
        return lambda *arguments: mistake(*arguments)

    class Head(nn.Module):
        def __init__(self, feature_dim, num_classes):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(num_classes, feature_dim))
            self.eta = nn.Parameter(torch.tensor(1.0))

        def forward(self, features):
            return mistake(features, self.weight, self.eta)

    return Head


@pytest.mark.parametrize("exercise", EXERCISES, ids=named)
def test_every_mistake_is_recognised(exercise):
    for words, mistake in exercise.mistakes.items():
        lines, right = exercise.report(as_submission(exercise, mistake))
        assert not right, words
        assert f"This is what comes out when {words}." in "\n".join(lines)


@pytest.mark.parametrize("exercise", EXERCISES, ids=named)
def test_no_two_mistakes_look_alike_and_none_looks_right(exercise):
    behaviours = [b for b in exercise.behaviours() if b not in exercise.first]
    seen = {}
    for words, function in {"": exercise.stand_in, **exercise.mistakes}.items():
        seen[words] = []
        for behaviour in behaviours:
            try:
                seen[words].append(behaviour.observe(function))
            except sandbox.Wrong as wrong:
                seen[words].append({wrong.words: torch.zeros(())})
    for one, other in itertools.combinations(seen, 2):
        pairs = zip(seen[one], seen[other], strict=True)
        assert not all(grading.same(a, b, exercise.tolerance) for a, b in pairs), (one, other)


def test_a_mistake_that_shows_in_several_ways_is_said_once():
    text, _ = report(next(s for s in WRONG if s.function.__name__ == "dot_products"))
    assert text.count("This is what comes out when") == 1
    assert text.count("for the same reason") >= 1


def test_a_gradient_into_the_teacher_has_nothing_to_do_with_the_value():
    def less_forget(features, old_features):
        return (1 - (features * old_features).sum(dim=1)).mean()

    lines, _ = checks.less_forget.report(less_forget)
    (teacher,) = [line for line in lines if "teacher:" in line]
    assert teacher.endswith("which would change the teacher")


def test_new_classes_that_are_counted_one_by_one_in_the_batch_are_told_as_the_highest_is():
    def lucir_loss(output, targets, old_output, num_old, base=5.0, top_k=2, margin=0.5):
        loss = F.cross_entropy(output.logits, targets)
        if num_old == 0:
            return loss
        weight = base * (num_old / len(targets[targets >= num_old].unique())) ** 0.5
        loss = loss + weight * losses.less_forget(output.features, old_output.features)
        return loss + losses.margin_ranking(output.cosines, targets, num_old, top_k, margin)

    text = "\n".join(checks.lucir_loss.report(lucir_loss)[0])
    assert "when the new classes are counted from the batch, in which some can be missing" in text


def test_a_mistake_that_explains_only_a_part_is_not_named():
    def angles(weight):  # right but for the corner, where it gives what another mistake gives
        cosines = losses.cosine_similarity_matrix(weight, weight)
        wide = cosines.clamp(-1, 1).acos().rad2deg()
        return cosines if len(weight) > 50 else wide

    text = "\n".join(checks.angles.report(angles)[0])
    assert "✓ value" in text and "✗ is a number also" in text
    assert "This is what comes out when" not in text


# ---- Messages ---------------------------------------------------------------------------------


def test_what_is_raised_comes_with_its_line_and_the_arguments():
    def less_forget(features, old_features):
        scaled = features * 2
        return scaled.no_such_thing

    text = "\n".join(checks.less_forget.report(less_forget)[0])
    assert "raises AttributeError: 'Tensor' object has no attribute 'no_such_thing'" in text
    assert "in line 3 of less_forget: return scaled.no_such_thing" in text
    assert "features: a tensor of shape (6, 4)" in text
    assert "Traceback" not in text and "grading.py" not in text


def test_the_line_of_a_head_that_raises():
    class CosineHead(nn.Module):
        def __init__(self, feature_dim, num_classes):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(num_classes, feature_dim))
            self.eta = nn.Parameter(torch.tensor(1.0))

        def forward(self, features):
            return features @ self.wait.T

    text = "\n".join(checks.CosineHead.report(CosineHead)[0])
    assert "in line 2 of forward: return features @ self.wait.T" in text


@pytest.mark.parametrize(
    ("exercise", "give", "says"),
    [
        (checks.less_forget, lambda f, o: f.max(dim=0), "values and indices together; wanted: the"),
        (checks.herding, lambda f, n: f.sum(1).topk(n), "wanted: the indices"),
        (checks.angles, lambda w: w.sort(), "wanted: the values"),
        (checks.angles, lambda w: w.aminmax(), "gives min and max together; wanted: one tensor"),
        (checks.nearest_mean, lambda f, e, y: torch.linalg.qr(f), "Q and R together; wanted:"),
    ],
)
def test_what_torch_gives_together_is_told_apart(exercise, give, says):
    _, line = exercise.report(give)[0]
    assert line.startswith("  ✗ gives ") and says in line


def test_nothing_is_tested_after_a_function_that_cannot_be_called():
    def less_forget(features, old_features):
        raise ValueError("no")

    lines, _ = checks.less_forget.report(less_forget)
    assert sum("✗" in line or "✓" in line for line in lines) == 1


def test_exit_does_not_end_the_kernel(monkeypatch):
    class Shell:  # as a kernel has it: asked by exit() to end
        def ask_exit(self):
            pytest.fail("the kernel ends")

    shell = Shell()
    monkeypatch.setattr(sandbox, "get_ipython", lambda: shell)
    lines, _ = checks.adaptive_lambda.report(lambda *arguments: shell.ask_exit())
    assert "raises SystemExit" in lines[1]
    assert shell.ask_exit.__func__ is Shell.ask_exit


def test_a_check_within_a_function_that_is_checked_leaves_nothing_behind(monkeypatch):
    class Shell:
        def ask_exit(self):
            pass

    def adaptive_lambda(base, num_old, num_new):
        checks.angles.report(stub)
        return losses.adaptive_lambda(base, num_old, num_new)

    shell = Shell()
    monkeypatch.setattr(sandbox, "get_ipython", lambda: shell)
    random.seed(7)
    before = random.getstate()
    assert checks.adaptive_lambda.report(adaptive_lambda)[1]
    assert random.getstate() == before and not vars(shell)


def test_an_exception_that_cannot_be_shown():
    class Odd(Exception):
        def __str__(self):
            raise ValueError

    def adaptive_lambda(base, num_old, num_new):
        raise Odd

    text = "\n".join(checks.adaptive_lambda.report(adaptive_lambda)[0])
    assert "raises" in text and "Odd" in text


@pytest.mark.parametrize("exercise", EXERCISES, ids=named)
def test_the_docstring_has_the_signature(exercise):
    given = re.match(rf"{exercise.name}\((.*?)\)", exercise.__doc__)[1]
    names = [part.split("=")[0] for part in given.split(", ")]
    if exercise.name == "CosineHead":
        assert names == ["feature_dim", "num_classes"]
    else:
        longest = max(exercise.cases, key=len)
        assert list(longest) == names
        assert list(inspect.signature(exercise.stand_in).parameters)[: len(names)] == names
    assert getattr(checks, exercise.name) is exercise


# ---- Prints -----------------------------------------------------------------------------------


def test_what_a_function_prints_is_shown_below_the_report():
    def adaptive_lambda(base, num_old, num_new):
        if base == 3.0:
            print("old", num_old, "new", num_new)
        return losses.adaptive_lambda(base, num_old, num_new)

    lines, right = checks.adaptive_lambda.report(adaptive_lambda)
    assert right
    assert lines[-4:] == ["  it printed:", *["    old 7 new 13"] * 3]


def test_of_long_prints_the_beginning_is_shown_and_the_rest_counted():
    def adaptive_lambda(base, num_old, num_new):
        print("x" * 399)
        return losses.adaptive_lambda(base, num_old, num_new)

    lines, right = checks.adaptive_lambda.report(adaptive_lambda)
    shown = lines[lines.index("  it printed:") + 1 :]
    assert right
    assert shown == ["    " + "x" * 399] * 2 + ["    " + "x" * 200] + [shown[-1]]
    # four examples in each of three behaviours, of which 1000 characters are shown
    assert shown[-1] == f"    … and {12 * 400 - 1000:,} characters more"


def test_a_flood_of_prints_is_stopped_at_once():
    calls = []

    def adaptive_lambda(base, num_old, num_new):
        for _ in range(1_000_000):
            calls.append(print("again", file=random.choice([sys.stdout, sys.stderr])))

    began = time.monotonic()
    lines, right = checks.adaptive_lambda.report(adaptive_lambda)
    assert time.monotonic() - began < 0.9
    assert not right and "prints more than 10,000 characters" in lines[1]
    assert len(calls) < 10_000 and len("\n".join(lines)) < 2000


def test_other_threads_print_as_ever(capsys):
    stop = threading.Event()

    def talk():
        while not stop.wait(0.001):
            print("another thread")

    def adaptive_lambda(base, num_old, num_new):
        print("mine")
        time.sleep(0.01)
        return losses.adaptive_lambda(base, num_old, num_new)

    before, talker = sys.stdout, threading.Thread(target=talk)
    talker.start()
    try:
        lines, _ = checks.adaptive_lambda.report(adaptive_lambda)
    finally:
        stop.set()
        talker.join()
    assert sys.stdout is before
    printed = capsys.readouterr().out
    assert printed.count("another thread") > 3 and "mine" not in printed
    assert "    mine" in lines and "another thread" not in "\n".join(lines)


# ---- Loops that never end ---------------------------------------------------------------------


def endless(base, num_old, num_new):
    while True:
        pass


def stubborn(base, num_old, num_new):
    while True:
        try:  # noqa: SIM105
            time.sleep(0.01)
        except:  # noqa: E722
            pass


def test_an_endless_loop_is_stopped_and_its_thread_is_gone(monkeypatch):
    monkeypatch.setattr(sandbox, "TIME_LIMIT", 0.2)
    before, began = working_threads(), time.monotonic()
    lines, _ = checks.adaptive_lambda.report(endless)
    assert time.monotonic() - began < 2
    assert lines[1:] == [
        "  ✗ gives one number: ran longer than 0.2 s; is there a loop that never ends?"
    ]
    assert soon(lambda: working_threads() <= before)


def test_a_loop_that_catches_everything_is_put_to_sleep(monkeypatch):
    monkeypatch.setattr(sandbox, "TIME_LIMIT", 0.2)
    before, began = working_threads(), time.monotonic()
    lines, _ = checks.adaptive_lambda.report(stubborn)
    assert time.monotonic() - began < 2
    assert lines[1].endswith("is there a loop that never ends?")
    (left,) = working_threads() - before
    frame = sys._current_frames()[left]
    assert frame.f_code is sandbox._Sleep.__init__.__code__


def test_what_cannot_be_stopped_is_said_so(monkeypatch):
    monkeypatch.setattr(sandbox, "TIME_LIMIT", 0.2)
    monkeypatch.setattr(sandbox, "STOPPING", 0.1)
    release = threading.Event()
    lines, _ = checks.adaptive_lambda.report(lambda *arguments: release.wait())
    release.set()
    assert "cannot be stopped: restart the kernel" in lines[1]


# ---- Too much memory, and too deep ------------------------------------------------------------


def growing(base, num_old, num_new):
    kept = bytes(2**20)
    while True:
        kept += kept


GREEDY = {
    "torch": lambda base, num_old, num_new: torch.ones(10**11),
    "numpy": lambda base, num_old, num_new: np.ones(10**11),
    "pairs": lambda base, num_old, num_new: torch.ones(10**6) @ torch.ones(10**6, 10**5),
    "a text": lambda base, num_old, num_new: "x" * 10**12,
    "what grows": growing,
}


@pytest.mark.skipif(not hasattr(psutil.Process, "rlimit"), reason="only Linux can limit memory")
@pytest.mark.parametrize("kind", GREEDY)
def test_gigabytes_are_refused_and_given_back(kind, monkeypatch):
    monkeypatch.setattr(sandbox, "TIME_LIMIT", 20.0)
    process = psutil.Process()
    limit, before = process.rlimit(psutil.RLIMIT_AS), process.memory_info()
    lines, right = checks.adaptive_lambda.report(GREEDY[kind])
    assert not right and "raises MemoryError: more than 2 GB, for examples this small" in lines[1]
    assert process.rlimit(psutil.RLIMIT_AS) == limit
    assert process.memory_info().vms < before.vms + 2**29, "it is held still"


def deep(base, num_old, num_new):
    return 1 + deep(base, num_old, num_new)


def deeper(base, num_old, num_new):
    sys.setrecursionlimit(20_000)
    return deep(base, num_old, num_new)


@pytest.mark.parametrize("function", [deep, deeper])
def test_endless_recursion_is_said_so_in_a_few_lines(function):
    before = sys.getrecursionlimit()
    lines, _ = checks.adaptive_lambda.report(function)
    text = "\n".join(lines)
    assert "raises RecursionError: maximum recursion depth exceeded" in text
    assert "of deep: return 1 + deep(base, num_old, num_new)" in text
    assert len(text) < 600 and sys.getrecursionlimit() == before


def test_an_interrupt_by_the_user_stops_the_cell(request):
    # what was started in the background with & may ignore the signal
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, usual))
    before, began = working_threads(), time.monotonic()
    timer = threading.Timer(0.2, _thread.interrupt_main)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        checks.adaptive_lambda(endless)
    timer.join()
    assert time.monotonic() - began < 0.9, "before the time limit"
    assert soon(lambda: working_threads() <= before)


# ---- Nothing is left behind -------------------------------------------------------------------


def state():
    threads = []  # the number that a new thread starts with
    asking = threading.Thread(target=lambda: threads.append(torch.get_num_threads()))
    asking.start()
    asking.join()
    return (
        threads,
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        sys.stdout,
        sys.stderr,
    )


@pytest.mark.parametrize("fails", [False, True])
def test_random_states_and_torch_settings_stay(fails):
    def adaptive_lambda(base, num_old, num_new):
        random.seed(1), np.random.seed(2), torch.manual_seed(3)
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(3)
        torch.set_grad_enabled(False)
        sys.stdout = None
        if fails:
            raise ValueError
        return losses.adaptive_lambda(base, num_old, num_new)

    random.seed(7), np.random.seed(7), torch.manual_seed(7)
    before = state()
    _, right = checks.adaptive_lambda.report(adaptive_lambda)
    assert right is not fails
    assert state() == before


def patch_function():
    F.normalize = lambda x, dim=1: x


def patch_method():
    torch.Tensor.sum = lambda self, *arguments, **named: self  # its own is of a class above


def patch_operator():
    torch.nn.Module.__call__ = lambda self, x: x


def patch_constructor():
    torch.nn.Linear.__init__ = lambda self: None


def patch_ours():
    losses.less_forget = None


def patch_the_grader():
    grading.same = lambda *given: True


def patch_an_exercise():
    grading.Exercise.verdict = lambda *given: ("right", [])


def delete():
    vars(np).pop("linalg", None)


def shadow():
    import builtins

    builtins.sum = max


@pytest.mark.parametrize(
    ("patch", "name"),
    [
        (patch_function, "torch.nn.functional.normalize"), (patch_method, "Tensor.sum"),
        (patch_operator, "Module.__call__"), (patch_constructor, "Linear.__init__"),
        (patch_ours, "losses.less_forget"), (patch_the_grader, "lab.grading.same"),
        (patch_an_exercise, "Exercise.verdict"), (delete, "numpy.linalg"), (shadow, "builtins.sum"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)  # fmt: skip
@pytest.mark.parametrize("fails", [False, True])
def test_changes_of_libraries_are_told_and_put_back(patch, name, fails):
    def less_forget(features, old_features):
        value = losses.less_forget(features, old_features)
        patch()
        if fails:
            raise ValueError("no")
        return value

    before = [dict(vars(owner)) for owner in sandbox.SHARED]
    lines, right = checks.less_forget.report(less_forget)
    assert not right and f"changes {name}, on which all other code depends" in lines[1]
    after = [dict(vars(owner)) for owner in sandbox.SHARED]
    assert [
        (owner, name)
        for owner, was, now in zip(sandbox.SHARED, before, after, strict=True)
        for name in was.keys() | now.keys()
        if was.get(name) is not now.get(name) and not name.startswith("__")
    ] == []
    assert checks.less_forget.report(as_it_should_be)[1]
    assert not checks.less_forget.report(lambda features, old_features: features.sum())[1]


def test_the_folder_is_the_same_afterwards(tmp_path):
    before = os.getcwd()

    def adaptive_lambda(base, num_old, num_new):
        os.chdir(tmp_path)
        return losses.adaptive_lambda(base, num_old, num_new)

    assert checks.adaptive_lambda.report(adaptive_lambda)[1]
    assert os.getcwd() == before


VILLAINS = """
import sys, torch, torch.nn.functional as F
from lucir_edu.lab import checks, sandbox
sandbox.TIME_LIMIT = 0.5
def loop(*_):
    while True: pass
def flood(*_):
    while True: print("x" * 100)
def memory(*_): return torch.ones(10**11)
def recursion(*_): return recursion()
def leave(*_): exit()
def leave_too(*_): raise SystemExit
def patch(*_): torch.Tensor.sum = None
def unknown(*_): return undefined
torch.manual_seed(3)
state = torch.get_rng_state()
for villain in (loop, flood, memory, recursion, leave, leave_too, patch, unknown):
    checks.adaptive_lambda(villain)
assert torch.equal(torch.get_rng_state(), state)
"""


def test_a_kernel_lives_on_whatever_it_is_given(tmp_path):
    cells = [VILLAINS, "print('alive', float(torch.ones(3).sum()))"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    NotebookClient(notebook, timeout=60).execute()
    report = "".join(output["text"] for output in notebook.cells[0].outputs)
    lines = [line for line in report.splitlines() if "✗" in line]
    words = ["ran longer than", "prints more than", "MemoryError", "RecursionError", "SystemExit",
             "SystemExit", "changes Tensor.sum", "NameError"]  # fmt: skip
    assert len(lines) == len(words)
    assert [word for word, line in zip(words, lines, strict=True) if word not in line] == []
    assert notebook.cells[1].outputs[0]["text"] == "alive 3.0\n"


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_are_seen_whatever_mode_the_notebook_is_in(mode):
    with mode():
        assert checks.less_forget.report(as_it_should_be)[1]


def as_it_should_be(features, old_features):
    return losses.less_forget(features, old_features)


def test_numbers_are_of_the_usual_type_whatever_the_notebook_made_of_it():
    def less_forget(features, old_features):
        return losses.less_forget(features @ torch.eye(features.shape[1]), old_features)

    torch.set_default_dtype(torch.float64)
    try:
        assert checks.less_forget.report(less_forget)[1]
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("draw", [random.random, np.random.rand, lambda: torch.rand(()).item()])
def test_a_function_that_draws_random_numbers_gets_the_same_report_every_time(draw):
    def adaptive_lambda(base, num_old, num_new):
        return losses.adaptive_lambda(base, num_old, num_new) + draw()

    first = checks.adaptive_lambda.report(adaptive_lambda)
    for _ in range(50):
        draw()
    assert checks.adaptive_lambda.report(adaptive_lambda) == first


def test_a_check_works_in_a_thread():
    found = []
    thread = threading.Thread(
        target=lambda: found.append(checks.less_forget.report(as_it_should_be))
    )
    thread.start()
    thread.join()
    assert found[0][1]
