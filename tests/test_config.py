"""Knobs, presets and methods; what a mistake is answered with."""

import json

import numpy as np
import pytest

from lucir_edu.config import (
    METHODS,
    PRESETS,
    Config,
    UsageError,
    method_of,
    parse,
    preset,
)

# ---- Presets ----------------------------------------------------------------------------------


def test_the_presets_that_are_promised_are_there():
    promised = {"glyphs-b50-5", "cifar100-2tasks", "cifar100-5tasks", "folder"}
    promised |= {f"cifar100-b50-{n}" for n in (1, 2, 5, 10, 25)}
    promised |= {f"imagenet-subset-b50-{n}" for n in (5, 10)}
    promised |= {f"imagenet-b500-{n}" for n in (5, 10)}
    assert promised == set(PRESETS)


@pytest.mark.parametrize("phases", [1, 2, 5, 10, 25])
def test_cifar_presets_have_the_authors_settings(phases):
    config = preset(f"cifar100-b50-{phases}")
    assert len(config.phase_sizes(100)) == phases + 1
    expected = {
        "dataset": "cifar100", "order_seed": 1993, "base_classes": 50, "backbone": "resnet32",
        "width": 16, "epochs": 160, "batch_size": 128, "lr": 0.1, "momentum": 0.9,
        "weight_decay": 5e-4, "schedule": "steps", "milestones": (0.5, 0.75), "warmup": 0.0,
        "crop_padding": 4, "flip": True, "exemplars_per_class": 20, "memory_total": None,
        "lambda_base": 5.0, "top_k": 2, "margin": 0.5, "margin_weight": 1.0, "imprints": True,
        "freezes_old": True, "adaptive_lambda": True, "lambda_rule": "code",
        "margin_reduction": "code", "balanced_finetune": False,
    }  # fmt: skip
    assert {name: getattr(config, name) for name in expected} == expected


@pytest.mark.parametrize(("name", "sizes"), [("2tasks", [50, 50]), ("5tasks", [20] * 5)])
def test_presets_with_2000_images_in_total(name, sizes):
    config = preset(f"cifar100-{name}")
    assert config.phase_sizes(100) == sizes
    assert config.memory_total == 2000


@pytest.mark.parametrize(
    ("name", "classes", "phases"),
    [(f"imagenet-subset-b50-{n}", 100, n) for n in (5, 10)]
    + [(f"imagenet-b500-{n}", 1000, n) for n in (5, 10)],
)
def test_imagenet_presets_have_the_authors_settings(name, classes, phases):
    config = preset(name)
    sizes = config.phase_sizes(classes)
    assert sizes == [classes // 2] + [classes // 2 // phases] * phases
    expected = {
        "dataset": "folder", "order_seed": 1993, "backbone": "resnet18", "feature_dim": None,
        "epochs": 90, "batch_size": 128, "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4,
        "schedule": "steps", "warmup": 0.0, "flip": True, "exemplars_per_class": 20,
        "memory_total": None, "lambda_base": 10.0, "top_k": 2, "margin": 0.5, "margin_weight": 1.0,
        "imprints": True, "freezes_old": True, "adaptive_lambda": True, "lambda_rule": "code",
        "balanced_finetune": False, "damaged": "refuse",
    }  # fmt: skip
    assert {name: getattr(config, name) for name in expected} == expected
    assert [round(share * 90) for share in config.milestones] == [30, 60]
    assert config.subset_classes == (100 if classes == 100 else None)


def test_the_default_preset_is_lucir_on_glyphs():
    assert preset() == preset("glyphs-b50-5") == Config()
    assert Config().phase_sizes(100) == [50] + [10] * 5


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_goes_with_every_preset(name, method):
    config = preset(name, method=method, epochs=3)
    assert method_of(config) == method
    assert config.epochs == 3


# ---- Methods ----------------------------------------------------------------------------------


def test_methods_are_the_named_sets_of_switches():
    switches = {
        name: tuple(getattr(preset(method=name), s) for s in ("cosine", "less_forget",
                    "margin_ranking", "distillation", "joint", "imprints"))
        for name in METHODS
    }  # fmt: skip
    assert switches == {
        "finetune": (False, False, False, False, False, False),
        "replay": (False, False, False, False, False, False),
        "icarl": (False, False, False, True, False, False),
        "cosine": (True, False, False, False, False, True),
        "cosine+lf": (True, True, False, False, False, True),
        "lucir": (True, True, True, False, False, True),
        "frozen": (True, False, False, False, False, True),
        "joint": (True, False, False, False, True, False),
    }
    assert [name for name in METHODS if preset(method=name).frozen_network] == ["frozen"]
    assert preset("cifar100-2tasks", method="finetune").memory_total is None
    assert preset(method="finetune").exemplars_per_class == 0
    assert preset(method="replay").exemplars_per_class > 0


def test_exemplars_per_class_take_the_place_of_a_total():
    assert preset("cifar100-2tasks").memory_total == 2000
    changed = preset("cifar100-2tasks", exemplars_per_class=5)
    assert (changed.exemplars_per_class, changed.memory_total) == (5, None)
    assert preset("cifar100-b50-5", memory_total=900).memory_total == 900
    both = preset("cifar100-2tasks", exemplars_per_class=5, memory_total=900)
    assert both.memory_total == 900


def test_a_change_comes_on_top_of_the_method():
    config = preset(method="replay", cosine=True)
    assert config.cosine and not config.less_forget
    assert method_of(config) == "cosine"


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"cosine": False}, "linear+lf+mr"),
        ({"less_forget": False}, "cosine+mr"),
        ({"adaptive_lambda": False}, "cosine+lf+mr+fixed_lambda"),
        ({"imprint": False}, "cosine+lf+mr+no_imprint"),
        ({"freeze_old_embeddings": False}, "cosine+lf+mr+unfrozen"),
        ({"balanced_finetune": True}, "cosine+lf+mr+balanced_finetune"),
        ({"frozen_network": True}, "cosine+lf+mr+frozen_network"),
        ({"score_distillation": True}, "cosine+lf+mr+score_distillation"),
    ],
)
def test_a_set_of_switches_without_a_name_is_spelt_out(changes, name):
    assert method_of(Config(**changes)) == name


@pytest.mark.parametrize("switch", [True, False])
def test_imprint_follows_cosine_and_freezing_follows_less_forget(switch):
    config = Config(cosine=switch, less_forget=switch)
    assert (config.imprints, config.freezes_old) == (switch, switch)
    other = Config(
        cosine=switch, less_forget=switch, imprint=not switch, freeze_old_embeddings=not switch
    )
    assert (other.imprints, other.freezes_old) == (not switch, not switch)


def test_a_teacher_is_needed_by_three_switches():
    off = {"less_forget": False, "margin_ranking": True}
    assert not Config(**off).needs_teacher
    for switch in ("less_forget", "score_distillation", "distillation"):
        assert Config(**{**off, switch: True}).needs_teacher


# ---- Mistakes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda: preset("cifar100-b50-3"), "no preset 'cifar100-b50-3' .did you mean 'cifar100-b"),
        (lambda: preset(method="lucyr"), "no method 'lucyr' .did you mean 'lucir'"),
        (lambda: preset(cosin=True), "no setting 'cosin' .did you mean 'cosine'"),
        (lambda: Config.from_dict({"epoch": 3}), "no setting 'epoch' .did you mean 'epochs'"),
        (lambda: Config(backbone="resnet23"), "backbone='resnet23' is not known"),
        (lambda: Config(lambda_rule="authors"), "choose one of: code, paper"),
        (lambda: Config(epochs=0), "epochs must be from 1"),
        (lambda: Config(batch_size=1), "batch_size must be from 2"),
        (lambda: Config(momentum=1.0), "momentum must be from 0"),
        (lambda: Config(epochs=1.5), "epochs=1.5 is not a whole number"),
        (lambda: Config(epochs=True), "epochs=True is not a whole number"),
        (lambda: Config(cosine=1), "cosine=1 is not true or false"),
        (lambda: Config(lr=float("nan")), "lr=nan is not a finite number"),
        (lambda: Config(lr="0.1"), "lr='0.1' is not a finite number"),
        (lambda: Config(lr=None), "lr=None is not a finite number"),
        (lambda: Config(imprint="yes"), "imprint='yes' is not true or false or none"),
        (lambda: Config(milestones=(0.5, 1.5)), "milestones are shares"),
        (lambda: Config(milestones=0.5), "milestones=0.5 is not numbers with commas"),
        (
            lambda: preset(method="finetune", balanced_finetune=True),
            "balanced_finetune tunes the head on exemplars, and none are kept",
        ),
        (lambda: Config(top_k=11), "top_k=11.*increment=10"),
        (
            lambda: preset(method="linear+lf+mr"),
            r"no method .*\(set method=replay, less_forget=true, margin_ranking=true\)",
        ),
        (lambda: parse(["cosine"]), "'cosine' lacks a value"),
        (lambda: parse(["cosine=maybe"]), "cosine='maybe' is not true or false"),
        (lambda: parse(["epochs=ten"]), "epochs='ten' is not a whole number"),
        (lambda: parse(["epoch=10"]), "no setting 'epoch'"),
    ],
)
def test_a_mistake_is_answered_in_one_line(mistake, message):
    with pytest.raises(UsageError, match=message) as raised:
        mistake()
    assert "\n" not in str(raised.value)


def test_few_new_classes_are_no_mistake_without_margin_ranking():
    assert Config(increment=1, margin_ranking=False).top_k == 2


def test_numpy_s_numbers_are_numbers_and_whole_ones_no_other_setting():
    found = Config(seed=np.arange(5)[3], lr=np.float32(0.5), margin=1)
    assert found == Config(seed=3, lr=0.5, margin=1.0)
    assert str(found.margin) == "1.0" and type(found.seed) is int
    with pytest.raises(UsageError, match="is not a whole number"):
        Config(seed=np.arange(2))
    assert Config(base_classes=None).base_classes is None


# ---- Text and back ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_a_config_survives_json(name):
    config = preset(name)
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_settings_are_read_from_text():
    found = parse(
        ["lr=0.05", "cosine=false", "epochs= 3 ", "milestones=0.3,0.6", "imprint=none",
         "memory_total=2000", "base_classes=None", "backbone=resnet20", "flip=Yes"]
    )  # fmt: skip
    assert found == {
        "lr": 0.05, "cosine": False, "epochs": 3, "milestones": (0.3, 0.6), "imprint": None,
        "memory_total": 2000, "base_classes": None, "backbone": "resnet20", "flip": True,
    }  # fmt: skip


def test_a_method_replaces_switches_before_it_and_is_changed_by_those_after():
    assert preset(**parse(["cosine=true", "method=replay"])) == preset(method="replay")
    found = preset(**parse(["method=replay", "cosine=true"]))
    assert found == preset(method="replay", cosine=True)


def test_a_method_keeps_settings_before_it_that_are_no_switches():
    assert preset(**parse(["epochs=3", "method=replay"])) == preset(method="replay", epochs=3)


def test_a_config_cannot_be_changed_by_accident():
    with pytest.raises(AttributeError):
        Config().epochs = 3
