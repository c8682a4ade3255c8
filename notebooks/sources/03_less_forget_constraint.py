# %% [markdown]
# # The less-forget constraint
#
# *Features that stay where the old classes need them.*
#
# **After this notebook you can**
#
# - measure how far features drift while new classes are learned,
# - say what distilling scores cannot see, and show it with a rotation,
# - write the less-forget constraint and its adaptive weight $\lambda$,
# - trade old classes against new ones with $\lambda$, and say why old embeddings must be frozen.
#
# **Time:** 45 minutes, of which the machine computes one. **You need:** `02_cosine_normalization`.
#
# **In the paper:** Eq. 5 ($L^C_{dis}$), Eq. 6 ($L^G_{dis}$), Eq. 7 ($\lambda$), and Figure 4.

# %%
import dataclasses
import math

import numpy as np
import torch
import torch.nn.functional as F

from lucir_edu import config, datasets, losses, runs
from lucir_edu.lab import checks, drawings, lessons, plots
from lucir_edu.lab.explorer import Explorer
from lucir_edu.lab.panels import TrainingPanel

# %%
settings = config.preset("glyphs-b50-5", method="cosine", epochs=5)  # five, to save your time
data = datasets.load(settings)
bases = runs.load_bases("glyphs-b50-5")
every = list(runs.load_bank("glyphs-b50-5"))
bank = [run for run in every if run["seed"] < 3]  # seeds that every setting shown here has
table = {row["label"]: row for row in runs.compare(bank)}

# %% [markdown]
# ## The features move
#
# `02` took lengths and biases out of the head. But an old class's embedding $\theta_i$ was learned for the features as
# they were *then*. Call the network before a phase the **teacher**, and its feature $f^*(x)$; the network that learns
# has the feature $f(x)$. The **drift** of an image is
#
# $$1 - \langle \bar f^*(x), \bar f(x) \rangle,$$
#
# one minus the cosine of the two: 0 when the direction is the same, 1 when they are at right angles. The drawing shows,
# for an image of an old class, what could go wrong, and what this notebook aims for instead:

# %%
OLD, NEW, THEN = ("old θ", 85, 1, "old"), ("new θ", 5, 1, "new"), ("f*(x)", 66, 1, "before")
plots.show(drawings.directions({
    "before the phase": ([OLD, THEN], []),
    "after it": ([OLD, NEW, THEN, ("f(x)", 32, 1, "feature")], [(32, 66, "drift")]),
    "with less-forget": ([OLD, NEW, THEN, ("f(x)", 50, 1, "feature")], [(50, 66, "drift")]),
}))  # fmt: skip

# %% [markdown]
# **Predict:** the network learns Greek capitals, with cosine normalization and three exemplars per
# old class. What is the mean drift of *Latin* test images?

# %%
my_guess = 0.5  # between 0 and 2

# %%
teacher = lessons.restore(bases["cosine"], settings, data)
latin = range(50)
before, labels = lessons.look(teacher, settings, data, latin)


def drift(network):
    """Mean drift of the Latin test images, which are never trained on."""
    after, _ = lessons.look(network, settings, data, latin)
    return lessons.drift(after.features, before.features)


# %%
ends = {"nothing": lessons.learn(settings, data, bases["cosine"], until=1)}
drifts = {"nothing": drift(ends["nothing"].model)}
print(f"drift {drifts['nothing']:.2f}; your guess was {my_guess}")
assert 25 < math.degrees(math.acos(1 - drifts["nothing"])) < 37

# %%
start = (before.logits.argmax(dim=1) == labels).float().mean().item()
print(f"Latin letters and digits read right before: {100 * start:.0f} % (among 50 classes)")
print(f"after: {ends['nothing'].measurement.cnn_old:.0f} % (among 60)")

# %% [markdown]
# A drift of 0.15 is a cosine of 0.85: on average the features have turned by about 30 degrees. Not all of the drop in
# accuracy is due to the drift, because the ten new classes take images away too (`02`). You will see below how much
# comes back when the features are held in place.
#
# ## Distilling scores
#
# A well-known remedy is *distillation*, which *LwF* (Li and Hoiem, ECCV 2016) made popular against forgetting: train the
# new network to give old classes the scores that the teacher gives them. The paper writes it for cosines, which are the
# scores before the scale is applied (Eq. 5):
#
# $$L^C_{dis}(x) = \sum_{i=1}^{|C_o|} \| \langle\bar\theta_i, \bar f(x)\rangle -
# \langle\bar\theta^*_i, \bar f^*(x)\rangle \|$$
#
# where $|C_o|$ is the number of old classes and a star marks what belongs to the teacher. (The authors' code takes the
# *square* of each difference; so does the exercise.)
#
# ## Exercise 1: score distillation
#
# *Difficulty ●○○○, 5 minutes.* Write the sum over old classes of squared differences, averaged over the images. No
# gradient may flow back into the teacher.


# %%
def score_distillation(cosines_old, teacher_cosines):
    """Both (n, C_o): a scalar."""
    ### BEGIN SOLUTION
    difference = cosines_old - teacher_cosines.detach()
    return (difference**2).sum(dim=1).mean()
    ### END SOLUTION


# %% tags=["nbval-check-output"]
score_distillation = checks.score_distillation(score_distillation)

# %% tags=["nbval-check-output"]
cosines = torch.tensor([[0.6, 0.1, 0.0], [0.2, 0.9, 0.1]])
teachers = torch.tensor([[0.5, 0.1, 0.2], [0.2, 0.7, 0.1]])
print(f"{score_distillation(cosines, teachers):.3f} (yours)")
print(f"{losses.score_distillation(cosines, teachers):.3f} (the package's)")
print(f"{((0.1**2 + 0.2**2) + 0.2**2) / 2:.3f} (by hand)")

# %% [markdown]
# Other methods distil *probabilities*. iCaRL, as LUCIR's authors ran it, softens both softmaxes with a temperature $T$
# and takes $\beta T^2$ times their Kullback-Leibler divergence. (iCaRL's own paper distils sigmoids, one per class.)
# For two classes with logits $(2, 0)$ and the teacher's $(0, 2)$, $T = 2$ and $\beta = 1/4$, it can be computed by
# hand. The two softened probabilities are 0.73 and 0.27; the teacher's are the other way round. Each log ratio is
# $\pm 1$, so the divergence is $0.73 - 0.27 = \tanh(1/2)$, and $\beta T^2 = 1$:

# %% tags=["nbval-check-output"]
student, expert = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])
print(f"the package: {losses.distillation(student, expert):.4f}")
print(f"by hand: tanh(1/2) = {math.tanh(0.5):.4f}")

# %% [markdown]
# With cosine normalization the paper prefers to distil the scores: they lie between $-1$ and $1$ in both networks,
# while the two scales $\eta$ differ.
#
# ## What it cannot see
#
# Turn *all* features by some rotation $Q$, and all class embeddings by the same $Q$. The angles between them stay the
# same.
#
# **Predict:** after such a rotation, is $L^C_{dis}$ zero, small, or large? And the drift?

# %%
my_guess_rotated = {"score distillation": None, "drift": None}

# %%
torch.manual_seed(0)
rotation, _ = torch.linalg.qr(torch.randn(64, 64))
rotation[:, 0] *= rotation.det().sign()  # not a reflection
turned = before.features @ rotation.T
weight = teacher.head.weight.detach()
scores = losses.cosine_similarity_matrix(turned, weight @ rotation.T)
blind = score_distillation(scores, before.cosines).item()
moved = lessons.drift(turned, before.features)
print(f"score distillation {blind:.6f}, drift {moved:.2f}; your guesses: {my_guess_rotated}")
assert blind < 1e-6 and moved > 0.8

# %% [markdown]
# Score distillation preserves the *angles between features and embeddings*. If the whole arrangement turns, it sees
# nothing. By itself that would do no harm: the answers are the same. The harm comes from what does **not** turn with
# the rest: images that were in no batch, and embeddings of new classes, which the teacher's scores do not cover. And
# there is a second blind spot: 50 embeddings span at most 50 of the 64 dimensions; when a feature turns *within* the
# other 14, no score changes. (From phase 3 on there are more old embeddings than dimensions, and this blind spot is
# gone.)
#
# ## The less-forget constraint
#
# So the paper does two things: it **freezes** the old embeddings, and it asks the *features* to keep
# their direction (Eq. 6):
#
# $$L^G_{dis}(x) = 1 - \langle \bar f^*(x), \bar f(x) \rangle$$
#
# This is exactly the drift from above, now used as a loss, on all images of the batch, including new ones.
#
# ## Exercise 2: less-forget
#
# *Difficulty ●●○○, 10 minutes.* Write it, as a mean over the batch. The teacher must not learn.


# %%
def less_forget(features, old_features):
    """features, old_features (n, d): a scalar from 0 to 2."""
    ### BEGIN SOLUTION
    cosine = F.cosine_similarity(features, old_features.detach(), dim=1)
    return (1 - cosine).mean()
    ### END SOLUTION


# %% tags=["nbval-check-output"]
less_forget = checks.less_forget(less_forget)

# %% [markdown]
# <details><summary>Help</summary>
#
# The lengths of the features must not count: make both unit vectors first, then multiply and sum over the feature
# dimension. `.detach()` stops the gradient from flowing into a tensor.
# </details>

# %% tags=["nbval-check-output"]
features = torch.tensor([[1.0, 0.0], [3.0, 4.0]], requires_grad=True)
old_features = torch.tensor([[0.0, 2.0], [6.0, 8.0]])
loss = less_forget(features, old_features)
print(f"yours {loss:.2f}, the package's {losses.less_forget(features, old_features):.2f}")
print("by hand: at right angles 1, same direction 0, mean", (1 + 0) / 2)

# %% [markdown]
# The package's version:

# %%
lessons.source(losses.less_forget)

# %% [markdown]
# ## How strong?
#
# The loss of a phase is $L_{ce} + \lambda L^G_{dis}$. With many old classes there is much to lose, so
# $\lambda$ adapts to the numbers of old and new classes, $|C_o|$ and $|C_n|$. Here **paper and code
# disagree**. The paper prints (Eq. 7)
#
# $$\lambda = \lambda_{base} \sqrt{|C_n| / |C_o|},$$
#
# while the authors' published code, by which others get numbers like the paper's (`06`), computes
# $\lambda_{base}\sqrt{|C_o| / |C_n|}$.
#
# ## Exercise 3: lambda
#
# *Difficulty ●○○○, 3 minutes.* Write the rule of the authors' code.


# %%
def adaptive_lambda(base, num_old, num_new):
    """lambda_base and the numbers of classes: a number."""
    ### BEGIN SOLUTION
    return base * (num_old / num_new) ** 0.5
    ### END SOLUTION


# %% tags=["nbval-check-output"]
adaptive_lambda = checks.adaptive_lambda(adaptive_lambda)

# %% tags=["nbval-check-output"]
print("old  new   code  paper")
for num_old in (50, 60, 70, 80, 90):
    paper = losses.adaptive_lambda(5, num_old, 10, rule="paper")
    print(f"{num_old:3d}   10 {adaptive_lambda(5, num_old, 10):6.2f} {paper:6.2f}")

# %% [markdown]
# The two rules differ by a factor of 5 to 9, and move in opposite directions. Does it matter?
#
# ## Train with your loss
#
# The trainer takes any objective: a function that returns the terms to be summed. For each batch it is given `config`,
# the settings; `output`, what the network computes for the batch (`.features`, `.cosines`, `.logits`); `targets`;
# `old`, what the teacher computes for the same batch (`None` in the base phase, and when no setting keeps a teacher);
# and `num_old`, the number of old classes. Each term is a scalar: a mean over the batch.


# %%
def objective_with(weight):
    """Cross-entropy plus weight times your less-forget."""

    def objective(config, output, targets, old, num_old):
        return {
            "cross_entropy": F.cross_entropy(output.logits, targets),
            "less_forget": weight * less_forget(output.features, old.features),
        }

    return objective


# %% [markdown]
# **Predict:** phase 1 with the old embeddings frozen and $\lambda$ = 0, 4, 11.2 (the code's rule), and 30. As $\lambda$
# grows, which way does the accuracy of old classes go, and that of new ones? At which $\lambda$ is the accuracy over
# all 60 classes best?

# %%
my_guess_lambda = "old classes …, new classes …, best at λ = …"

# %%
with_teacher = dataclasses.replace(settings, less_forget=True)  # keeps a teacher, freezes old rows
weights = (0.0, 4.0, adaptive_lambda(5, 50, 10), 30.0)
for weight in weights:
    end = lessons.learn(
        with_teacher, data, bases["cosine"], until=1, objective=objective_with(weight)
    )
    ends[weight], drifts[weight] = end, drift(end.model)

# %%
shown = {weight: ends[weight].measurement for weight in weights}
x = list(shown)
plots.show(plots.curves(
    {"old classes": (x, [m.cnn_old for m in shown.values()]),
     "new classes": (x, [m.cnn_new for m in shown.values()]),
     "all": (x, [m.cnn for m in shown.values()])},
    "λ", "test accuracy after phase 1 (%)", marks=True))  # fmt: skip
print(f"Your guess was: {my_guess_lambda}")

# %%
none, small, rule, large = shown.values()
assert none.cnn_old < small.cnn_old < rule.cnn_old, "old classes gain up to the code's rule"
assert none.cnn_new > small.cnn_new > rule.cnn_new > large.cnn_new, "new classes pay"
assert rule.cnn_old - none.cnn_old > none.cnn_new - rule.cnn_new + 5
assert rule.cnn > max(none.cnn + 5, small.cnn, large.cnn) and rule.cnn_old > large.cnn_old

# %%
print("drift:", ", ".join(f"{drifts[key]:.3f} at λ = {key:.0f}" for key in weights))
assert drifts[weights[3]] > drifts[weights[2]], "pulled harder, and yet further away"

# %% [markdown]
# This is the trade-off: the larger $\lambda$, the less room for the new classes. From 0 to the code's value old classes
# gain more than new ones lose, and over all 60 classes the code's value is the best of the four. Far beyond it old
# classes lose a little as well, and the features drift **further** again: most likely the steps overshoot while the
# learning rate is at its maximum, 0.1, and the rest of the phase does not bring the features back.
#
# ## Which half does the work? And a control
#
# The constraint has two halves, the loss and the frozen embeddings. **Predict:** which of them does more on its own?
# Four more runs of phase 1 will tell: the loss *without* freezing; $L^C_{dis}$ (weight 1) in place of $L^G_{dis}$, once
# with free and once with frozen embeddings; and a **control**. Perhaps any pull on the features helps, as a brake. So
# the control gives each image the teacher's feature of *another* image of the batch.

# %%
my_guess_half = "loss or freezing"


# %%
code_rule = weights[2]


def shuffled(config, output, targets, old, num_old):
    """Less-forget with the features of other images as targets."""
    wrong = old._replace(features=old.features.roll(1, dims=0))
    return objective_with(code_rule)(config, output, targets, wrong, num_old)


# %%
free = dataclasses.replace(with_teacher, freeze_old_embeddings=False)
scores_too = dataclasses.replace(settings, score_distillation=True)
scores_frozen = dataclasses.replace(scores_too, freeze_old_embeddings=True)
more = {"loss alone": (free, objective_with(code_rule)), "score distillation": (scores_too, None),
        "scores, frozen": (scores_frozen, None), "shuffled": (with_teacher, shuffled)}  # fmt: skip
for name, (what, objective) in more.items():
    ends[name] = lessons.learn(what, data, bases["cosine"], until=1, objective=objective)
    drifts[name] = drift(ends[name].model)

# %%
names = {"nothing": "nothing", 0.0: "frozen alone", "loss alone": "less-forget, not frozen",
         code_rule: "less-forget and frozen", "score distillation": "scores, not frozen",
         "scores, frozen": "scores and frozen", "shuffled": "shuffled and frozen"}  # fmt: skip
for key, name in names.items():
    m = ends[key].measurement
    print(f"{name:23s} drift {drifts[key]:.2f}, old {m.cnn_old:3.0f} %, new {m.cnn_new:3.0f} %, "
          f"old taken for new {m.old_to_new:3.0f} %")  # fmt: skip
print(f"Your guess was: {my_guess_half}")

# %%
old = {name: ends[name].measurement.cnn_old for name in names}
assert old[0.0] < old["nothing"] + 2 and drifts[0.0] > 0.08, "freezing alone is no help"
assert old["nothing"] + 4 < min(old["loss alone"], old["score distillation"])
assert max(old["loss alone"], old["score distillation"]) < old[code_rule] - 4
assert abs(old["loss alone"] - old["score distillation"]) < 4, "hardly more"
gained = {key: old[key] - old["nothing"] for key in (code_rule, "loss alone")}
assert 1.5 < gained[code_rule] / gained["loss alone"] < 3, "about twice as large"
assert old["scores, frozen"] < min(old["score distillation"] + 3, old[code_rule] - 6)
assert drifts["loss alone"] < drifts["score distillation"] < drifts["nothing"]
assert (
    old["shuffled"] < 5 and ends["shuffled"].measurement.cnn < ends["nothing"].measurement.cnn - 10
)

# %% [markdown]
# Freezing alone is no help: the features drift away from embeddings that stand still. The loss alone keeps the features
# in place better than score distillation does, and yet hardly more old images are read right: the embeddings themselves
# are free to move. With both halves the gain over *nothing* is about twice as large as with the loss alone. Score
# distillation gains nothing from freezing. With frozen embeddings it would see a rotation, so the rotation is not what
# holds it back here. (Its weight of 1 is that of the authors' code, as is $\lambda_{base} = 5$; neither was tuned.
# These are single runs.) And with wrong targets the same loss destroys what was there: it is the *teacher's direction*
# that matters.
#
# Over all phases (recorded, three seeds):

# %%
for label in ("cosine", "cosine+score_distillation", "cosine+lf"):
    cells = [f"{key} {table[label][key][0]:.1f} ± {table[label][key][1]:.1f} %"
             for key in ("average (CNN)", "last (CNN)", "forgetting (CNN)")]  # fmt: skip
    print(f"{label:26s} {', '.join(cells)}")

# %% [markdown]
# In average incremental accuracy, score distillation gains little over the cosine head alone, and its last accuracy is
# lower, in every seed. (Here; on CIFAR-100, with short training, it gains more: see `06`.) Less-forget, with its frozen
# embeddings, halves the forgetting.

# %%
end = {label: table[label]["last (CNN)"][0] for label in table}
assert end["cosine"] + 2 < end["cosine+lf"]
ends_of = {name: [run["last_accuracy"]["cnn"] for run in bank if runs.label(run) == name]
           for name in ("cosine", "cosine+score_distillation")}  # fmt: skip
assert all(with_it < without for without, with_it in zip(*ends_of.values(), strict=True))
assert (
    table["cosine+score_distillation"]["average (CNN)"][0] < table["cosine"]["average (CNN)"][0] + 2
)
lost = {label: table[label]["forgetting (CNN)"][0] for label in ("cosine", "cosine+lf")}
assert lost["cosine+lf"] < 0.6 * lost["cosine"]

# %% [markdown]
# ## Two conditions
#
# In that one phase the loss alone did half. Does it need the frozen embeddings over all phases, too? And it was made
# for the cosine head: what if that head is missing? **Predict:** what do the two halves add, the loss and then
# freezing, when everything else is on, and what on the *linear* head alone?

# %%
my_guess_halves = "everything on: loss +…, freezing +…; linear head: loss +…, freezing +…"

# %% [markdown]
# Recorded, three seeds each. They are compared seed by seed, because one of the three is far from the others.

# %%
for label in ("lucir", "cosine+lf+mr+unfrozen", "replay", "linear+lf", "linear+lf+unfrozen"):
    cells = [f"{key} {table[label][key][0]:.1f} ± {table[label][key][1]:.1f} %"
             for key in ("average (CNN)", "last (CNN)", "last (NME)")]  # fmt: skip
    print(f"{label:22s} {', '.join(cells)}")

# %%
by_seed = {(runs.label(run), run["seed"]): run["average_incremental_accuracy"]["cnn"]
           for run in bank}  # fmt: skip
parts = {
    "everything on: the loss": ("cosine+lf+mr+unfrozen", "cosine+mr"),
    "everything on: freezing": ("lucir", "cosine+lf+mr+unfrozen"),
    "linear head: the loss": ("linear+lf+unfrozen", "replay"),
    "linear head: freezing": ("linear+lf", "linear+lf+unfrozen"),
}
adds = {part: [by_seed[one, seed] - by_seed[other, seed] for seed in range(3)]
        for part, (one, other) in parts.items()}  # fmt: skip
for part, differences in adds.items():
    print(f"{part:23s}", ", ".join(f"{d:+.1f}" for d in differences), "points")
print(f"Your guess was: {my_guess_halves}")

# %%
loss, freezing, linear_loss, linear_freezing = adds.values()
assert 2 < min(freezing) < max(freezing) < 3.5 and max(loss) < 1
assert all(a + b < 0 for a, b in zip(linear_loss, linear_freezing, strict=True))
assert 5 < min(linear_loss) < 9 and -10 < min(linear_freezing) < max(linear_freezing) < -8
assert all(table[label]["last (NME)"][0] > table["replay"]["last (NME)"][0] + 1
           for label in ("linear+lf", "linear+lf+unfrozen"))  # fmt: skip
assert table["linear+lf"]["last (CNN)"][0] < table["replay"]["last (CNN)"][0] - 10

# %% [markdown]
# With everything on, freezing adds two to three and a half points in every seed; without it, the loss on top of margin
# ranking gains nothing. (Most likely cross-entropy on the many new images pushes old embeddings away when they are
# free, however still the features are.) On the linear head it is the other way round. There the loss alone adds more
# than five points in every seed: it keeps the features in place (NME, which reads them without the head, is better than
# replay's), and the head gains as well. Freezing takes all of that away and more: at the end the head is more than ten
# points worse than replay's. Which classes take the Latin images there?

# %%
first = runs.firsts(bank)
groups = {"Latin": slice(0, 50), "phases 1-4": slice(50, 90), "newest": slice(90, 100)}
goes_to, lengths, biases, latin_to = {}, {}, {}, {}
for label in ("replay", "linear+lf+unfrozen", "linear+lf"):
    ended = [{name: array[-1] for name, array in run.arrays.items()} for run in bank
             if runs.label(run) == label]  # fmt: skip
    images, lengths[label], biases[label] = (
        sum(end[name] for end in ended) / len(ended)
        for name in ("confusion_cnn", "weight_norms", "biases")
    )
    latin_to[label] = 100 * images[:50].sum(axis=0) / images[:50].sum()  # each class's share, in %
    for name, of in groups.items():
        goes_to[label, name] = latin_to[label][of].sum()
        print(f"{label:18s} {name:10s} length {lengths[label][of].mean():.2f}, bias "
              f"{biases[label][of].mean():+.2f}: {goes_to[label, name]:.0f} % of Latin images")  # fmt: skip

# %%
between = {label: goes_to[label, "phases 1-4"] for label in lengths}
assert max(between["replay"], between["linear+lf+unfrozen"]) < 10 < 35 < between["linear+lf"]
assert all(latin_to["linear+lf"][start : start + 10].sum() > 5 for start in range(50, 100, 10))
assert abs(goes_to["replay", "newest"] - goes_to["linear+lf", "newest"]) < 10
of = groups["phases 1-4"]
assert lengths["linear+lf"][of].mean() > 1.5 * lengths["linear+lf"][:50].mean()
assert biases["linear+lf"][of].mean() > 0.9
for free in ("replay", "linear+lf+unfrozen"):
    assert lengths[free][of].mean() < 1.2 * lengths[free][:50].mean()
    assert biases[free][of].mean() < 0.5 * biases[free][90:].mean()

# %% [markdown]
# (Means of three seeds.) A frozen row keeps its length and its bias. What the classes of a phase gained while they were
# new (`01`) they keep for good; where rows are free, they lose most of it again as later classes come. So Latin images
# go to the classes of *all* later phases. In a cosine head a frozen length does no harm, because the forward pass
# divides it out, and there is no bias. So it is the freezing that needs the cosine head; and next to margin ranking,
# the loss needs the freezing.
#
# Now the two rules for $\lambda$, over all phases, seed by seed:

# %%
rules = {"code": "lucir", "paper": "lucir lambda_rule=paper"}
by_rule = {rule: [run for run in bank if runs.label(run) == rules[rule]] for rule in rules}
for rule, found in by_rule.items():
    print(f"the {rule}'s rule, seeds 0, 1, 2: average",
          ", ".join(f"{run['average_incremental_accuracy']['cnn']:.1f}" for run in found),
          "%, old taken for new",
          ", ".join(f"{run['phases'][-1]['old_to_new']:.1f}" for run in found), "%")  # fmt: skip

# %%
code, paper = ([run["average_incremental_accuracy"]["cnn"] for run in by_rule[r]] for r in rules)
assert (
    abs(code[0] - paper[0]) < 2 and abs(code[1] - paper[1]) < 2 and 7.5 < paper[2] - code[2] < 8.5
)
for key, least, most in (("cnn_old", 1, 4), ("cnn_new", -9, -4)):
    code, paper = (np.array([[phase[key] for phase in run["phases"][1:]] for run in by_rule[r][:2]])
                   for r in rules)  # fmt: skip
    assert all(least < more < most for more in (code - paper).mean(axis=1))
code, paper = ([run["phases"][-1]["old_to_new"] for run in by_rule[r]] for r in rules)
assert max(code) < min(paper)

# %% [markdown]
# In accuracy the rules agree within two points on seeds 0 and 1, although their $\lambda$ differ by a factor of five to
# nine: what the weight gains for old classes it costs new ones. With the code's rule fewer old images are taken for new
# ones, in every seed. And then there is seed 2. Look at $L^G_{dis}$ there, epoch by epoch, before it is multiplied by
# $\lambda$:

# %%
loss, unstable = {}, {rule: found[2]["phases"][1] for rule, found in by_rule.items()}
for rule, phase in unstable.items():
    weight = losses.adaptive_lambda(5, 50, 10, rule=rule)
    loss[rule] = [value / weight for value in phase["losses"]["less_forget"]]
    print(f"the {rule}'s rule, seed 2, phase 1:", ", ".join(f"{v:.3f}" for v in loss[rule]))
    print(f"    old classes in the end {phase['cnn_old']:.1f} %")  # fmt: skip
assert loss["code"][1] > 7 * loss["code"][0] and max(loss["paper"]) < 3 * loss["paper"][0]
calm = [run["phases"][1]["losses"]["less_forget"] for run in by_rule["code"][:2]]
assert [round(max(values) / values[0]) for values in calm] == [3, 2]
five = [run["phases"][1]["losses"]["less_forget"] for run in every if runs.label(run) == "lucir"]
assert [max(values) > 5 * values[0] for values in five] == [False, False, True, False, False]
assert all(0.03 < values[-1] / code_rule < 0.05 for values in calm)
assert abs(loss["code"][-1] - loss["paper"][-1]) < 0.02
assert 13.5 < unstable["paper"]["cnn_old"] - unstable["code"]["cnn_old"] < 14.5

# %% [markdown]
# In the second epoch, when the learning rate has just reached its maximum, the loss jumps: with the code's rule to
# eight times what it was, with the paper's to less than three times. (On seeds 0 and 1 the code's rule stays at about
# three and two times, and ends near 0.04.) At the end of the phase the two losses are about the same, though one is
# weighted five times as much; but with the code's rule the accuracy of the old classes is 14 points lower. So $\lambda
# = 11.2$ at a learning rate of 0.1 is close to where training gets unstable: of the five recorded seeds, one went over
# the edge. A single seed would have told you either that the code's rule is as good as the
# paper's, or that it is eight points worse. Both rules are in the package: `lambda_rule` chooses.
#
# ## Try it
#
# The drift can be seen. Here are recorded runs again: the directions of test images' features, in the plane in which
# those of the base phase are spread out most. A grey line leads from where an image was in the base phase. A is without
# less-forget; B is with it, and there the lines are shorter:

# %%
plots.show(plots.features({"without less-forget": first["cosine"],
                           "with less-forget": first["cosine+lf"]}))  # fmt: skip

# %%
moved = {}
for label in ("cosine", "cosine+lf"):
    then, now = (first[label].arrays["positions"][phase][:50].astype(float) for phase in (0, 5))
    moved[label] = np.nanmean(np.linalg.norm(now - then, axis=-1))
    print(f"{label:9s} mean length of the base classes' lines {moved[label]:.2f}")
assert moved["cosine+lf"] < 0.8 * moved["cosine"]

# %% tags=["nbval-ignore-output"]
Explorer(bank, data, "cos-lf-mr~cos+lf-mr/seed0/phase5/features")

# %% [markdown]
# And live, with nine epochs a phase, as in the recorded runs. **Predict:** with less-forget but without cosine
# normalization, the accuracy after phase 1 is better than plain replay's, and at the end it is worse, as you saw. After
# which phase does it fall behind?

# %% tags=["nbval-ignore-output"]
panel = TrainingPanel(dataclasses.replace(settings, epochs=9), data, bases=bases)
panel

# %%
accuracy = {label: np.array([run.accuracies() for run in every if runs.label(run) == label])
            for label in ("replay", "linear+lf")}  # fmt: skip
for phase in range(1, 6):
    told = (f"{label} {found[:, phase].min():.0f} to {found[:, phase].max():.0f} %"
            for label, found in accuracy.items())  # fmt: skip
    print(f"recorded, after phase {phase}:", ", ".join(told))
ahead = accuracy["linear+lf"] - accuracy["replay"]
assert 9.5 < ahead[:, 1].min() < ahead[:, 1].max() < 17.6
assert ahead[:, 3:].max() < -2.5 and ahead[:, 5].max() < -10
assert ahead[:, 2].min() < 0 < ahead[:, 2].max()

# %% [markdown]
# Ahead by ten to seventeen points after phase 1, it is level after phase 2, and behind from phase 3 on: the frozen rows
# of each phase add up.
#
# ## What you have learned
#
# - While new classes are learned, old images' features drift away from where they were.
# - Score distillation is blind to a common rotation, and to turns in dimensions that no embedding uses.
# - Less-forget holds the direction of the features; old embeddings are frozen with it. In one phase freezing alone
#   gained nothing, the loss alone half; over all phases, next to margin ranking, the loss gains nothing without
#   freezing.
# - On a linear head the loss helps by itself, but freezing fixes lengths and biases too, and costs more than the loss
#   gains.
# - $\lambda$ trades old classes for new ones. The paper's rule and the authors' code differ; on this data the code's
#   larger $\lambda$ lets fewer old images go to new classes, and is close to where training gets unstable.
# - With wrong targets the same pull does harm.
#
# **Next:** [04_margin_ranking](04_margin_ranking.ipynb) separates old and new classes that look alike.
