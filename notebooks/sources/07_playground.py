# %% [markdown]
# # Playground
#
# *Every switch in one place.*
#
# **After this notebook you can**
#
# - test your own "what if" about LUCIR in a minute,
# - change any setting of an experiment in code,
# - build a method of your own, and bring data of your own,
# - tell a finding from chance, by using several seeds.
#
# **Time:** 40 minutes, or as long as you like. **You need:** `05_the_full_objective`.

# %%
import dataclasses

import torch

from lucir_edu import config, datasets, runs, trainer
from lucir_edu.lab import lessons, plots
from lucir_edu.lab.playground import playground

# %%
settings = config.preset("glyphs-b50-5", method="lucir")
data = datasets.load(settings)
bases = runs.load_bases("glyphs-b50-5")
bank = list(runs.load_bank("glyphs-b50-5"))
table = {row["label"]: row for row in runs.compare(bank)}

# %% [markdown]
# ## What is recorded
#
# These are all recorded settings of `glyphs-b50-5`, mean ± sd over seeds. (First the average incremental accuracy of
# the head, then the share of old classes' images taken for new ones at the end.)

# %%
for label, row in sorted(table.items(), key=lambda item: -item[1]["average (CNN)"][0]):
    average, mistaken = row["average (CNN)"], row["old taken for new"]
    print(f"{label:32s} {average[0]:5.1f} ± {average[1]:3.1f}   "
          f"{mistaken[0]:5.1f} ± {mistaken[1]:3.1f}   {len(row['seeds'])} seeds")  # fmt: skip

# %% [markdown]
# ## Predict
#
# Choose two settings above that you have not compared yet (those in the cell are an example). Which is better, and by
# how much more than the spread of the seeds?

# %%
my_pair = ("lucir", "cosine+mr")  # two labels from the list above
my_guess = 3.0  # points by which the first is better

# %%
(a, a_sd), (b, b_sd) = (table[label]["average (CNN)"] for label in my_pair)
print(
    f"{my_pair[0]} is better by {a - b:+.1f} points; one seed varies by about {max(a_sd, b_sd):.1f}"
)
one, other = ({run["seed"]: run["average_incremental_accuracy"]["cnn"] for run in bank
               if runs.label(run) == label} for label in my_pair)  # fmt: skip
both = sorted(one.keys() & other.keys())
print("seed by seed:", ", ".join(f"{one[seed] - other[seed]:+.1f}" for seed in both))
print(f"Your guess was {my_guess:+.1f}.")

# %% [markdown]
# The second line says more than the first: what comes from the seed cancels in it (`05`), when both have the same kind
# of head.

# %% [markdown]
# ## The panel
#
# The upper part of the panel shows the recorded runs. You choose the three components (the other settings are folded
# below them), a phase, a seed and a view. Tick *compare* for a second setting next to the first. The lower part has the
# same switches, to train for real. This is what the panel opens with:

# %%
first = runs.firsts(bank)
plots.show(plots.head(first["replay"]))

# %%
plots.show(plots.head(first["lucir"]))

# %% tags=["nbval-ignore-output"]
panel = playground("-cos-lf-mr~cos+lf+mr/seed0/phase5/norms")
panel

# %% [markdown]
# The line *this view* below the figures names what is shown. Give this string to somebody else, and `playground` called
# with it shows the same; parts may be left out. You can also set it in code, and read what is shown:

# %%
panel.explorer.shown = "cos+lf-mr~cos+lf+mr/seed3/phase4/confusion"
a, b = (panel.explorer.bank[setting, 3] for setting in ("cos+lf-mr", "cos+lf+mr"))
for name, run in (("without margin ranking", a), ("with it", b)):
    share = run["phases"][4]["old_to_new"]
    print(f"{name}: {share:.1f} % of old images taken for new ones after phase 4, seed 3")

# %% [markdown]
# For use without a running notebook, `make html` writes a page with the same switches.

# %% [markdown]
# ## Any setting, in code
#
# A method is a name for a set of switches:

# %% tags=["nbval-check-output"]
for name, switches in config.METHODS.items():
    on = [key for key, value in switches.items() if value]
    on += ["no exemplars"] * (switches.get("exemplars_per_class") == 0)
    print(f"{name:10s}", ", ".join(on) or "none")

# %% [markdown]
# Every setting is a field of the config. These are all of them, with their values for LUCIR. (With `None`, `imprint`
# follows `cosine`, and `freeze_old_embeddings` follows `less_forget`; here both are on.)

# %% tags=["nbval-check-output"]
for field in dataclasses.fields(settings):
    print(f"{field.name} = {getattr(settings, field.name)!r}")

# %% [markdown]
# One phase takes a few seconds. Change the first line and run the cell again, as often as you like. (`bases` has a base
# network for either head, as long as the settings leave the base phase as it is.)

# %%
mine = config.preset("glyphs-b50-5", method="lucir", margin=0.3, top_k=3)
base = bases["cosine" if mine.cosine else "linear"]
end = lessons.learn(mine, data, base, until=1).measurement
print(f"after phase 1: all {end.cnn:.1f} %, old {end.cnn_old:.1f} %, new {end.cnn_new:.1f} %, "
      f"old taken for new {end.old_to_new:.1f} %")  # fmt: skip

# %% [markdown]
# ## Chance or finding?
#
# The base networks are those of seed 0. Another seed for the phase draws other batches and crops. **Predict:**
# how far apart are two runs of the same setting?

# %%
my_guess_apart = 3.0  # points

# %%
again = dataclasses.replace(mine, seed=1)
other = lessons.learn(again, data, base, until=1).measurement
print(
    f"seed 0: {end.cnn:.1f} %, seed 1: {other.cnn:.1f} %; your guess: {my_guess_apart} points apart"
)
spread = table["lucir"]["average (CNN)"][1]
print(f"whole runs, five seeds: sd {spread:.1f} points")
each = [run["average_incremental_accuracy"]["cnn"] for run in bank if runs.label(run) == "lucir"]
print("one by one:", ", ".join(f"{value:.1f}" for value in each), "%")
assert max(each) - sorted(each)[1] < 3 < 7 < sorted(each)[1] - min(each)

# %% [markdown]
# A difference between two single runs that is not clearly larger than $\sqrt 2$ times that sd is not a finding, unless
# they share a base network (`05`). And look at the runs, not only at their sd: most of this sd comes from a single
# seed, whose training became unstable (`03`). When you have several seeds, compare runs of the same seed, as `05` does.
# To train them in the background, in a terminal (where `lucir-edu` is not found, it is `.venv/bin/lucir-edu`, on
# Windows `.venv\Scripts\lucir-edu`):
#
# ```
# lucir-edu sweep glyphs-b50-5 --grid margin=0.3,0.5 --grid top_k=2,3 --seeds 3 --out runs/mine
# lucir-edu report runs/mine --html runs/mine.html
# ```
#
# ## A method of your own
#
# `trainer.train` yields events, and you can step in at each of them. *Weight aligning* (Zhao et al., CVPR 2020; with
# distillation, which is left out here) trains a linear head as usual, and then scales the new classes' embeddings so
# that they are as long as the old ones on average. That is one line after a phase's last epoch, before the network is
# judged.
# **Predict:** is plain replay with this line, after phase 1, nearer to replay as it is or to the cosine head?

# %%
my_guess_aligned = "replay or cosine"


# %%
def align(head):
    """Make the new embeddings as long as the old ones, on average."""
    with torch.no_grad():
        head.new_weight *= head.old_weight.norm(dim=1).mean() / head.new_weight.norm(dim=1).mean()


plain = config.preset("glyphs-b50-5", method="replay")
for event in trainer.train(plain, data, start=bases["linear"], device="cpu"):
    if isinstance(event, trainer.EpochEnd) and event.epoch == plain.epochs:
        align(event.model.head)
    if isinstance(event, trainer.PhaseEnd) and event.measurement.phase == 1:
        aligned = dataclasses.asdict(event.measurement)
        break

# %%
compared = {"replay": first["replay"]["phases"][1], "replay, aligned": aligned,
            "cosine": first["cosine"]["phases"][1]}  # fmt: skip
for name, phase in compared.items():
    print(f"{name:15s} after phase 1: {phase['cnn']:.0f} %, old classes {phase['cnn_old']:.0f} %, "
          f"new {phase['cnn_new']:.0f} %, old taken for new {phase['old_to_new']:.0f} %")  # fmt: skip
print(f"Your guess was: {my_guess_aligned}")
assert aligned["cnn"] > compared["replay"]["cnn"] + 10
assert abs(aligned["cnn"] - compared["cosine"]["cnn"]) < 6
assert all(aligned[key] < compared["cosine"][key] - 5 for key in ("old_to_new", "cnn_new"))

# %% [markdown]
# In accuracy it gets about as far as the cosine head, in this one run, by mending nothing but lengths. But it gets
# there in another way: fewer old images go to new classes, and the new classes pay for it. (And over all phases? Take
# `break` out, and keep every measurement.)
#
# Here are projects of this kind, each a few lines in such a loop or in an `objective` (`03`, `04`):
#
# 1. *Bias correction* (Wu et al., CVPR 2019): two numbers, a scale and a shift for the new classes' logits, fitted to a
#    few images of each class that were held back.
# 2. A term of your own in the objective. What should it hold, and on which images?
# 3. Exemplars drawn at random: `Memory.add` in `lucir_edu/memory.py` chooses them. `01` measured NME; what about the
#    head?
# 4. Weight aligning on top of less-forget: what happens to the frozen rows' lengths?
#
# ## Data of your own
#
# A folder of images needs no code: `lucir-edu run folder --data-root DIR` learns any `train/CLASS/*.jpg`,
# `val/CLASS/*.jpg`. Images that are in memory already become a `Dataset`. Here they are noise, to show the shapes:

# %% tags=["nbval-check-output"]
noise = datasets.TensorSplit(torch.randint(256, (80, 1, 16, 16), dtype=torch.uint8),
                             torch.arange(8).repeat(10))  # fmt: skip
own = datasets.Dataset("noise", classes=tuple("abcdefgh"), train=noise, test=noise, mean=(0.5,),
                       std=(0.25,), fingerprint="noise, first version")  # fmt: skip
few = config.preset(method="replay", base_classes=4, increment=2, epochs=1)
for event in trainer.train(few, own, device="cpu"):
    if isinstance(event, trainer.PhaseEnd):
        print("phase", event.measurement.phase, "of", event.measurement.classes_seen, "classes")

# %% [markdown]
# (`mean` and `std` are of pixels from 0 to 1, one number per channel. You choose the fingerprint; it tells apart
# recorded runs on different data.)
#
# ## Questions to explore
#
# 1. Which setting has the smallest norm gap (`table[label]["norm gap"][0]`), and is it the best one? (Weight decay
#    plays a part.)
# 2. Train with `weight_decay=0.005`, from `bases` and from scratch: what happens to LUCIR's norm gap, and to its
#    accuracy?
# 3. Is there a $\lambda_{base}$ at which margin ranking adds nothing?
# 4. With `exemplars_per_class=0` and all three components: which term has nothing left to work on?
# 5. In which view do you see that old embeddings are not frozen? (A: all three components; B: *old embeddings
#    not frozen*, among the folded settings.)
# 6. `base_classes=10, increment=10`: ten phases from nothing. Which component matters most now? (`bases` has
#    networks of 50 classes. So leave them out: `lessons.learn(mine, data)`. It takes some minutes.)
#
# <details><summary>Answers to 2, 3 and 6: what we found, with one run of each setting (seed 0)</summary>
#
# More seeds may say otherwise. Our runs are those in `data/bank/questions`; these commands take some minutes and make
# them again (decimals differ between machines):
#
# ```
# lucir-edu sweep glyphs-b50-5 --seeds 1 --out runs/2 --grid weight_decay=0.0005,0.005
# lucir-edu sweep glyphs-b50-5 --seeds 1 --out runs/3 --grid method=cosine+lf,lucir --grid lambda_base=5,20,80
# lucir-edu sweep glyphs-b50-5 --seeds 1 --out runs/6 --set base_classes=10 --grid cosine,less_forget,margin_ranking
# ```
#
# **2.** After phase 1, from `bases` the gap nearly disappears: decay shortens what is new, and what is old is frozen.
# From scratch it is far wider than usual, because the base classes' embeddings are short too. LUCIR gains nothing in
# either case: lengths are divided out before they can do harm, or good.
#
# **3.** None that is of use among the three we tried (5, 20 and 80): at 20 margin ranking adds more than at 5; at 80
# the less-forget term drowns out the others, and training fails with margin ranking and without.
#
# **6.** Cosine normalization. Margin ranking comes second; next to a cosine head it adds a little. And less-forget
# *costs* accuracy, next to whatever else is on: it holds the features of a network that has seen ten classes, and all
# later classes have to make do with them.
#
# </details>
#
# <details><summary>Answers to 1, 4 and 5, for which nothing has to be trained</summary>
#
# **1.** `frozen` has none: imprinting gives new embeddings the mean length of the old ones, and nothing changes them.
# It is not the best. Where all images are kept (`joint`) there is hardly any gap, and this setting is the best. Of the
# methods that learn and forget, replay with 20 exemplars per class comes next. But with three, score distillation and
# `cosine` have smaller gaps than `lucir` and are worse on average: in a cosine head the gap does not rank methods.
#
# **4.** Margin ranking: it acts on old images, and there are none in a batch. The term is 0.
#
# **5.** In *norms*: where old embeddings are frozen, the length of a class's embedding stays what it was when the class
# was new, phase after phase; where they are not frozen, it changes.
#
# </details>

# %%
asked = {runs.label(run): run for run in runs.load_bank("questions")}
average = {label: run["average_incremental_accuracy"]["cnn"]
           for label, run in (first | asked).items()}  # fmt: skip

# %%
heavy = dataclasses.replace(settings, weight_decay=0.005)
end = lessons.learn(heavy, data, bases["cosine"], until=1).measurement
usual, scratch = ((first | asked)[label]["phases"][1]
                  for label in ("lucir", "lucir weight_decay=0.005"))  # fmt: skip
found = {"usual decay": usual, "more, from bases": dataclasses.asdict(end),
         "more, from scratch": scratch}  # fmt: skip
for name, phase in found.items():
    base, new = phase["weight_norm_old"], phase["weight_norm_new"]
    print(f"2. {name}, after phase 1: lengths {base:.2f} and {new:.2f}, gap "
          f"{100 * (new / base - 1):.0f} %, accuracy {phase['cnn']:.1f} %")  # fmt: skip
assert end.weight_norm_new < 1.15 * end.weight_norm_old
assert scratch["weight_norm_new"] > 2 * scratch["weight_norm_old"]
assert scratch["weight_norm_old"] < 0.7 * usual["weight_norm_old"]
assert max(end.cnn, scratch["cnn"]) < usual["cnn"] + 1
assert average["lucir weight_decay=0.005"] < average["lucir"]

# %%
adds = {5: average["lucir"] - average["cosine+lf"]}
for weight in (20, 80):
    lucir, without = (average[f"{m} lambda_base={weight:.1f}"] for m in ("lucir", "cosine+lf"))
    adds[weight] = lucir - without
    print(f"3. lambda_base {weight}: average {lucir:.1f} %, without margin ranking {without:.1f} %")
assert adds[20] > adds[5] + 5 and max(lucir, without) < 30, "at 80 both have failed"

# %%
ten = {label.split()[0]: value for label, value in average.items() if "base_classes=10" in label}
print("6.", ", ".join(f"{method} {value:.1f} %" for method, value in ten.items()))
assert ten["cosine"] - ten["replay"] > 12 > ten["linear+mr"] - ten["replay"] > 8
assert 2 < ten["cosine+mr"] - ten["cosine"] < 4
for without, held in (("replay", "linear+lf"), ("linear+mr", "linear+lf+mr"),
                      ("cosine", "cosine+lf"), ("cosine+mr", "lucir")):  # fmt: skip
    assert ten[held] < ten[without] - 2

# %%
LABELS = ("frozen", "joint", "replay exemplars_per_class=20", "cosine+score_distillation",
          "cosine", "lucir")  # fmt: skip
gaps = {label: table[label]["norm gap"][0] for label in LABELS}
print(", ".join(f"{label} {gap:.0f} %" for label, gap in gaps.items()))
assert list(gaps) == sorted(gaps, key=lambda label: abs(gaps[label])) and abs(gaps["joint"]) < 5
assert abs(gaps["frozen"]) < 0.01
assert sorted(table, key=lambda label: abs(table[label]["norm gap"][0]))[:3] == list(LABELS[:3])
best = sorted(table, key=lambda label: -table[label]["average (CNN)"][0])
assert best[0] == "joint"
assert best.index("lucir") < min(best.index(label) for label in LABELS[3:5])

# %%
for label in ("lucir", "cosine+lf+mr+unfrozen"):
    lengths = first[label].arrays["weight_norms"][:, :50].mean(axis=1)
    print(f"{label:21s} base classes, phase by phase:", ", ".join(f"{n:.3f}" for n in lengths))
    assert (max(abs(lengths - lengths[0])) < 1e-4) == (label == "lucir")

# %% [markdown]
# ## What others did
#
# LUCIR is from 2019. Other work, before and since, took up questions that you have met in this course:
#
# | question | an answer to read |
# |---|---|
# | Can the head be mended after training instead? | *bias correction* (Wu et al., CVPR 2019), *weight aligning* (Zhao et al., CVPR 2020) |
# | Which images are worth keeping? | *Mnemonics* (Liu et al., CVPR 2020) learns the exemplars themselves |
# | What about the features before the last? | *PODNet* (Douillard et al., ECCV 2020) holds those of every stage, pooled, and gives a class several embeddings |
# | Must one network both keep and learn? | *AANets* (Liu et al., CVPR 2021) pairs stable and plastic blocks; *DER* (Yan et al., CVPR 2021) adds a feature extractor in each phase |
# | Is it the method, or only the memory? | *GDumb* (Prabhu et al., ECCV 2020) learns from the memory alone, from scratch: a baseline to ask for |
# | What if no image may be kept? | *LwF* (Li and Hoiem, ECCV 2016) distils on the new images, *EWC* (Kirkpatrick et al., PNAS 2017) holds the weights that mattered; neither was made for one head over all classes |
# | What if the network has seen a great deal before? | *L2P* (Wang et al., CVPR 2022) freezes a pretrained transformer and learns prompts; *SimpleCIL* (Zhou et al., IJCV 2024) trains nothing at all, not even a base phase: the frozen rival of `05`, taken further |
#
# To compare many: *Class-incremental learning: survey and performance evaluation on image classification* (Masana et
# al., TPAMI 2022, [arXiv 2010.15277](https://arxiv.org/abs/2010.15277)), and *Class-incremental learning: a survey*
# (Zhou et al., TPAMI 2024, [arXiv 2302.03648](https://arxiv.org/abs/2302.03648)), which counts stored networks as
# memory too. On arXiv: bias correction [1905.13260](https://arxiv.org/abs/1905.13260), weight aligning
# [1911.07053](https://arxiv.org/abs/1911.07053), Mnemonics [2002.10211](https://arxiv.org/abs/2002.10211), PODNet
# [2004.13513](https://arxiv.org/abs/2004.13513), DER [2103.16788](https://arxiv.org/abs/2103.16788), AANets
# [2010.05063](https://arxiv.org/abs/2010.05063), LwF [1606.09282](https://arxiv.org/abs/1606.09282), EWC
# [1612.00796](https://arxiv.org/abs/1612.00796), L2P [2112.08654](https://arxiv.org/abs/2112.08654), SimpleCIL
# [2303.07338](https://arxiv.org/abs/2303.07338).

# %% [markdown]
# ## What you have learned
#
# - Every claim of the course is one setting away from being tested.
# - One run is an anecdote; seeds make it a finding.
#
# **Next:** a project, on your own data.
