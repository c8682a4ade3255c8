"""Which precision a machine gets (measured, Intel's AVX-512 is slower in bfloat16 without AMX), how
many threads a notebook, and how soon the first step is taken."""

import ast
import contextlib
import os
import platform
import subprocess
import sys

import pytest
import torch

from lucir_edu import hardware, memory, trainer
from lucir_edu.config import UsageError

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


@pytest.mark.parametrize(("native", "chosen"), [(True, "bfloat16"), (False, "float32")])
def test_a_gpu_computes_in_bfloat16_only_where_it_does_not_emulate_that(
    monkeypatch, native, chosen
):
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: including_emulation or native,
    )
    assert hardware.pick_precision("auto", torch.device("cuda")) == chosen


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_convolutions_compute_in_the_precision_chosen(make_config, dataset, precision):
    learner = trainer.Learner(make_config(epochs=1, precision=precision), dataset, CPU)
    seen = set()
    for module in learner.net.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda m, _, out: seen.add((m.training, out.dtype)))
    list(learner.learn(learner.stream.phases[0]))
    assert seen == {(training, getattr(torch, precision)) for training in (True, False)}


@pytest.mark.parametrize(("processes", "device"), [(1, "mps"), (2, "cpu")])
def test_several_processes_leave_apple_s_gpu_alone(monkeypatch, processes, device):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(hardware, "ranks", lambda: processes)
    assert hardware.pick_device().type == device


@pytest.mark.parametrize("asked", [None, "2"])
def test_a_notebook_leaves_a_core_to_the_browser_unless_told(asked):
    count = "print(torch.get_num_threads())"
    code = f"import torch; {count}; import lucir_edu.lab; {count}"
    env = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    env |= {} if asked is None else {"OMP_NUM_THREADS": asked}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    before, after = map(int, done.stdout.split())
    assert after == (max(1, before - 1) if asked is None else before)


@pytest.mark.parametrize("fused", [False, True])
def test_our_optimiser_takes_torch_s_steps(fused):
    def steps(kind):
        generator = torch.Generator().manual_seed(0)
        weights = [torch.randn(n, 3, generator=generator).requires_grad_() for n in (5, 2)]
        optimizer = kind(weights, lr=0.1, momentum=0.9, weight_decay=0.01, fused=fused)
        for rate in (0.1, 0.1, 0.01):
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            sum(w.pow(3).sum() for w in weights).backward()
            optimizer.step()
        return weights, [optimizer.state[w]["momentum_buffer"] for w in weights]

    for ours, theirs in zip(steps(hardware.SGD), steps(torch.optim.SGD), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_no_compiler_is_imported_to_train():
    code = (
        "import sys; from lucir_edu import config, datasets, runs\n"
        "settings = config.preset('glyphs-b50-5', epochs=1, train_per_class=4,\n"
        "                         test_per_class=2, width=4)\n"
        "print(runs.perform(settings, datasets.load(settings)).complete)\n"
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_a_result_tells_what_the_cpu_computed_with(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX9")
    name = hardware.describe(torch.device("cpu"), "float32")["device_name"]
    assert name == f"{platform.machine()} AVX9"


def test_a_result_tells_the_commit_and_whether_files_differ_from_it(tmp_path, monkeypatch):
    def git(*words):
        command = ["git", "-c", "user.name=x", "-c", "user.email=x", "-c", "commit.gpgsign=false"]
        done = subprocess.run([*command, *words], cwd=tmp_path, check=True, capture_output=True)
        return done.stdout.decode().strip()

    file = tmp_path / "package" / "hardware.py"
    file.parent.mkdir()
    file.write_text("one")
    monkeypatch.setattr(hardware, "__file__", str(file))
    assert hardware._commit() is None
    git("init")
    git("add", ".")
    git("commit", "--message", "one")
    git("tag", "--annotate", "v1", "--message", "v1")
    head = git("rev-parse", "HEAD")[:12]
    assert hardware._commit() == head
    file.write_text("another")
    assert hardware._commit() == head + "+"


def test_the_code_s_fingerprint_is_of_all_that_a_training_imports():
    code = """if True:
        import sys
        from lucir_edu import trainer
        from lucir_edu.datasets import cifar, folder, glyphs  # (each is imported when asked for)
        for name, module in sys.modules.items():
            if name.startswith("lucir_edu."):
                print("/".join(name.split(".")[1:]) + "/__init__" * hasattr(module, "__path__"))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {*done.stdout.split()} - {"files"} == {*hardware.MODULES}


def test_the_code_s_fingerprint_sees_code_and_neither_comments_nor_docstrings_nor_layout():
    code = 'def f(x):\n    """Why."""\n    # so\n    return [x, "y"]\n'
    same = 'def f(x):\n    """Because\n    of that."""\n\n    return [\n        x, "y"]  # so\n'
    meaning = [hardware._meaning(ast.parse(text)) for text in (code, same)]
    assert meaning[0] == meaning[1] and "Return" in meaning[0]
    assert hardware._meaning(ast.parse(code.replace('"y"', '"z"'))) != meaning[0]


def test_the_code_s_fingerprint_is_that_of_other_versions_of_python():
    """From 3.12 on f-strings have tokens of their own, and functions have parameters of types."""
    code = "def f(x: int = 0) -> str:\n    return f'{x!r:>{8}} of {1.5}'\n"
    assert hardware._meaning(ast.parse(code)) == (
        "Module(body=[FunctionDef(name='f',args=arguments(args=[arg(arg='x',annotation=Name("
        "id='int',ctx=Load()))],defaults=[Constant(value=0)]),body=[Return(value=JoinedStr(values="
        "[FormattedValue(value=Name(id='x',ctx=Load()),conversion=114,format_spec=JoinedStr(values="
        "[Constant(value='>'),FormattedValue(value=Constant(value=8),conversion=-1)])),Constant("
        "value=' of '),FormattedValue(value=Constant(value=1.5),conversion=-1)]))],returns=Name("
        "id='str',ctx=Load()))])"
    )


class Apple(torch.Tensor):
    """A tensor on a GPU that has no double precision."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        result = super().__torch_function__(function, types, args, kwargs)
        if function is torch.Tensor.cpu:
            return result.as_subclass(torch.Tensor)
        if isinstance(result, cls) and result.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return result


def test_nothing_asks_a_gpu_without_double_precision_for_it():
    features = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    there = features.as_subclass(Apple)
    with pytest.raises(TypeError, match="float64"):
        there.double()
    assert torch.equal(memory.herding(there, 5), memory.herding(features, 5))
    assert torch.equal(trainer.principal_plane(there), trainer.principal_plane(features))


def test_float32_is_no_tf32(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    hardware.pick_precision("bfloat16", CPU)
    assert torch.backends.cudnn.allow_tf32
    hardware.pick_precision("float32", CPU)
    assert torch.backends.cudnn.allow_tf32, "it is no matter of the CPU's"
    hardware.pick_precision("float32", torch.device("cuda"))
    assert not torch.backends.cudnn.allow_tf32


def test_images_lie_channels_last_but_on_apples_gpus():
    layouts = {name: hardware.layout(torch.device(name)) for name in ("cpu", "cuda", "mps")}
    assert layouts.pop("mps") == torch.contiguous_format
    assert set(layouts.values()) == {torch.channels_last}


def test_each_of_several_processes_has_a_gpu_of_its_own(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda card: (9, 0))
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(hardware, "ranks", lambda: 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert hardware.pick_device("auto") == torch.device("cuda", 1) and chosen == [1]


@pytest.mark.parametrize(
    ("capability", "device"), [((7, 0), "cpu"), ((7, 5), "cuda"), ((12, 1), "cuda")]
)
def test_a_gpu_that_this_pytorch_has_no_code_for_is_none(monkeypatch, capability, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90a", "compute_120"])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda card: capability)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert hardware.pick_device().type == device
    if device == "cpu":
        with pytest.raises(UsageError, match="too old"):
            hardware.pick_device("cuda")


def test_who_wants_the_cpu_does_not_start_a_gpu_s_driver(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda card: pytest.fail("started"))
    assert hardware.pick_device("cpu").type == "cpu"


@pytest.mark.parametrize("fails", [False, True])
def test_after_an_error_the_group_of_processes_is_left_as_it_is(monkeypatch, fails):
    """To end it would wait for the others, which wait for this process."""
    ended = []
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda backend: None)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: ended.append(True))
    with contextlib.suppress(UsageError), hardware.together():
        if fails:
            raise UsageError("no more room")
    assert ended == [True] * (not fails)
