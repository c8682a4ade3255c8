# %% [markdown]
# # Start here: watch a network forget
#
# *See forgetting happen in a minute, and how it is measured.*
#
# **After this notebook you can**
#
# - say what class-incremental learning is, and why it is hard,
# - train a network phase by phase and read its accuracy the way papers report it,
# - compute how much it has forgotten,
# - find your way through the course.
#
# **Time:** 20 minutes, of which the machine computes one. **You need:** Python; you should also know what a neural
# network, a softmax and a training loop are. The exercises from `01` on need PyTorch (indexing, `gather`, `topk`,
# `detach`). No GPU, no internet connection, no download.
#
# Run the cells one by one with Shift+Enter. The outputs that are already there were recorded: *Edit > Clear Outputs of
# All Cells* removes them, so that your predictions are your own.

# %%
from lucir_edu import config, datasets, metrics, runs, stream
from lucir_edu.lab import drawings, lessons, plots
from lucir_edu.lab.panels import TrainingPanel
from lucir_edu.progress import Progress

# %% [markdown]
# The course is about one paper: Saihui Hou, Xinyu Pan, Chen Change Loy, Zilei Wang and Dahua Lin, *Learning a Unified
# Classifier Incrementally via Rebalancing*, CVPR 2019
# ([PDF](https://openaccess.thecvf.com/content_CVPR_2019/papers/Hou_Learning_a_Unified_Classifier_Incrementally_via_Rebalancing_CVPR_2019_paper.pdf),
# [the authors' code](https://github.com/hshustc/CVPR19_Incremental_Learning)). Its method is called **LUCIR**.
#
# ## A service that reads letters
#
# Imagine an OCR service. In its first version it reads Latin letters and digits. Then, for each new
# release, customers ask for a new alphabet: Greek capitals, Cyrillic, Armenian, Georgian, Greek
# small letters. Each time the network is trained further, on the new letters.
#
# The data set is called *Glyphs-100*: 100 classes, drawn on the spot in twelve typefaces, then
# rotated, sheared, shaded and made noisy.

# %%
settings = config.preset("glyphs-b50-5", method="finetune")
data = datasets.load(settings)
plots.show(plots.samples(data))

# %% [markdown]
# The *stream* cuts the classes into **phases**. The first is the *base phase*; every later one
# brings ten *new* classes. Classes from earlier phases are *old*.

# %% tags=["nbval-check-output"]
plan = stream.make(settings, data)
print("phase  old  new  training images  test images")
for phase in plan.phases:
    numbers = (phase.number, phase.num_old, phase.num_new, len(phase.train), len(phase.test))
    print("{:5d} {:4d} {:4d} {:16d} {:12d}".format(*numbers))

# %% [markdown]
# The name `glyphs-b50-5` says it: 50 classes in the base phase, then 5 phases. The drawing shows which alphabets are
# learned in each phase, and which are tested then:

# %%
alphabets = list(datasets.glyphs.ALPHABETS)
plots.show(drawings.protocol(alphabets, exemplars=0))

# %% [markdown]
# Two rules make this *class-incremental* learning:
#
# 1. In a phase, the training images are those of the **new** classes. Old ones are gone: limited storage, privacy or a
#    licence may rule out keeping them, and training on everything again takes longer with each release. (The next
#    notebook keeps a handful.)
# 2. At test time an image may be of **any class seen so far**, and nobody says which phase it comes from. A single last
#    layer (the *head*) with a single softmax must tell all classes apart.
#
# (If each test image comes with the name of its phase, this is called *task*-incremental learning. If the classes stay
# the same and the images change, for example to new fonts for the same letters, it is called *domain*-incremental
# learning.)
#
# ## Predict
#
# The simplest thing to do is *fine-tuning*: go on training with the new classes' images. After
# phase 1 the network has seen 60 classes; 50 of them are Latin letters and digits, which it could
# read well. **What share of the Latin letters and digits will it still read after phase 1?**
# Write down a number before you go on.

# %%
my_guess = 50  # percent of Latin test images still read correctly after phase 1

# %% [markdown]
# ## Run
#
# This is real training: five alphabets, in half a minute to a minute and a half on two cores. It starts from a network
# that has already learned the base phase; this network comes with the course. (If you leave `start` out, the base phase
# is trained as well.)
#
# In the table, `CNN` is the accuracy of the network's own head over all classes seen so far. `CNN old` and `CNN new`
# are its accuracy on old and on new classes, and `old taken for new` is the share of old classes' images that are taken
# for a new class. (`NME` is a second way to get predictions from a network; it needs exemplars, and comes in `01`.)

# %%
bases = runs.load_bases("glyphs-b50-5")
finetuned = runs.perform(
    settings, data, preset="glyphs-b50-5", start=bases["linear"], device="cpu", watch=Progress()
)

# %% [markdown]
# ## Explain
#
# Look at each alphabet by itself, in a table with a row per phase and a column per alphabet.

# %%
plots.show(plots.by_group(finetuned, alphabets))

# %%
latin = finetuned.accuracy_matrix()[:, 0]
print(f"Latin letters and digits: {latin[0]:.0f} % after the base phase,")
print(f"{latin[1]:.0f} % after phase 1. Your guess was {my_guess} %.")

# %% [markdown]
# Nearly everything is gone after one phase, and each later alphabet is lost in turn when the next one
# comes. This is **catastrophic forgetting**. Nothing in the new images asks the network to keep
# what it knew: the cross-entropy loss is lowest when old classes are *never* predicted, because no
# training image is of an old class.
#
# The next cell checks this claim: each alphabet falls below a tenth of its accuracy as soon as the next one is learned,
# while the new alphabets are learned, with more than 60 % accuracy on average.

# %%
matrix = finetuned.accuracy_matrix()
fresh = matrix.diagonal()  # each alphabet just after it was learned
assert all(matrix[phase + 1, phase] < fresh[phase] / 10 for phase in range(5))
assert fresh[1:].mean() > 60

# %% [markdown]
# ## Forgotten, or only outvoted?
#
# When nothing is read correctly, that can mean two things: the network no longer knows anything about Latin letters, or
# it does, but one of the ten new classes always has a higher *logit* (a class's number before the softmax). You can
# find out: say that the image is a Latin letter or a digit, and let only these 50 classes compete, as task-incremental
# learning does. **Predict:** what share does the network read correctly then, after phase 1? (By chance it would be
# 2 %.)

# %%
my_guess_told = 50  # percent

# %%
end = lessons.learn(settings, data, bases["linear"], until=1)  # up to phase 1, once more
output, labels = lessons.look(end.model, settings, data, range(50))  # test images of 50 classes
told = 100 * (output.logits[:, :50].argmax(dim=1) == labels).float().mean().item()
print(f"among all 60 classes {end.measurement.cnn_old:.0f} % right, among the 50 old {told:.0f} %; "
      f"your guess was {my_guess_told} %")  # fmt: skip
assert 0.13 < told / latin[0] < 0.27, "about a fifth of the accuracy before phase 1"

# %% [markdown]
# This is more than chance, but far less than before: being outvoted is the smaller part, and even among old classes the
# head is mostly wrong now. (Whether the layers below the head have lost the letters as well is another question. `01`
# asks it, for a network that is trained with a few old images kept.)
#
# ## Measure it
#
# Papers report three numbers. Here $A_t$ is the accuracy after phase $t$ over all classes seen so far:
#
# - **average incremental accuracy**: the mean of $A_0 … A_T$, the base phase included,
# - **last accuracy**: $A_T$,
# - **forgetting**: for each group of classes, its best accuracy before the end minus its accuracy
#   at the end, averaged over groups (the last group left out).
#
# (Other papers give *backward transfer*: a group's accuracy at the end minus its accuracy just after it was learned.)
#
# These numbers differ a lot, so a number without its name means nothing. Here is a small example by hand, with three
# phases: a row per phase, a column per group of classes.

# %% tags=["nbval-check-output"]
matrix = [[90, 0, 0], [70, 80, 0], [50, 85, 95]]
print("forgetting:", metrics.forgetting(matrix))
print("by hand:   ", ((90 - 50) + (80 - 85)) / 2)
print("a mistake: ", ((90 - 50) + (85 - 85)) / 2, "(85 is the accuracy at the end, not before it)")

# %%
units = {"average_incremental_accuracy": "%", "last_accuracy": "%", "forgetting": "points"}
for name, unit in units.items():
    print(f"{name:30s} {finetuned[name]['cnn']:5.1f} {unit}")

# %% [markdown]
# ## Is the network too small for 100 letters?
#
# That is the first thing to rule out. The control has the same convolutions, but in every phase it is given *all*
# images of all classes seen so far (*joint training*; its head is that of `02`). It takes minutes, so its runs come
# with the course as recorded results; `lucir-edu run glyphs-b50-5 --set method=joint` makes such a run.

# %%
bank = list(runs.load_bank("glyphs-b50-5"))
first = runs.firsts(bank)
joint = first["joint"]
plots.show(plots.accuracy({"all images (recorded)": joint, "new images only": finetuned}))

# %%
assert joint["last_accuracy"]["cnn"] > 75 > 20 > finetuned["last_accuracy"]["cnn"]
assert all(run["phases"][5]["cnn"] > run["phases"][0]["cnn"] + 5 for run in bank
           if run["method"] == "joint")  # fmt: skip

# %% [markdown]
# The network has room for 100 letters. What it lacks is a reason to keep the old ones. (Joint training even ends better
# than it began, although there are more letters to confuse: it goes on training, with more and more images.)
#
# ## Try it: a first look at what helps
#
# In practice a few old images can be kept. They are called *exemplars*, and training on them too is called *replay*.
# LUCIR adds three components: *cosine normalization* (a head without lengths and biases), *less-forget* (features stay
# where they were) and *margin ranking* (old and new classes that look alike are kept apart). The course takes them one
# by one; here you can already switch them on. The panel starts from a network that has learned the base phase, and
# trains the five alphabets for real. **Train** starts the training, and **Stop** ends it whenever you like; what is
# done by then stays in the table below.
#
# This is what such training leads to (recorded, with three exemplars per class: all three components on, compared with
# exemplars alone):

# %%
plots.show(plots.accuracy({name: first[name] for name in ("finetune", "replay", "lucir")}))

# %% tags=["nbval-ignore-output"]
replay = config.preset("glyphs-b50-5", method="replay")  # exemplars alone
panel = TrainingPanel(replay, data, bases=bases)
panel

# %% [markdown]
# Things to try, each with a prediction first:
#
# 1. No exemplars at all, everything off. Then one exemplar per class: how much does it change?
# 2. Three exemplars, all three components on. Which curve moves most: old or new classes?
# 3. Only *less-forget*, without cosine normalization. Does it do the same?
#
# When you have tried them, compare your results with the recorded runs (means over their seeds):

# %%
SETTINGS = {"finetune": "no exemplars", "replay exemplars_per_class=1": "one per class",
            "replay": "three per class", "linear+lf": "three, less-forget",
            "lucir": "three, all components"}  # fmt: skip
last = {
    label: [run["phases"][-1] for run in bank if runs.label(run) == label] for label in SETTINGS
}
old, new = ({label: sum(phase[key] for phase in phases) / len(phases) for label, phases in last.items()}
            for key in ("cnn_old", "cnn_new"))  # fmt: skip
for label, words in SETTINGS.items():
    print(f"{words:22s} at the end: old classes {old[label]:.0f} %, new ones {new[label]:.0f} %, "
          f"{len(last[label])} seeds")  # fmt: skip
assert old["replay exemplars_per_class=1"] < 2 and old["replay"] > 30
assert old["lucir"] > old["replay"] + 15 and new["lucir"] < new["replay"] - 5
assert old["linear+lf"] < old["replay"] - 5

# %% [markdown]
# One exemplar per class changes next to nothing; three change a lot. The three components raise the old classes' curve,
# and the new classes pay for it. Less-forget by itself, on the linear head, makes the old classes worse; `03` shows
# why.
#
# ## A map of the course
#
# | notebook | question |
# |---|---|
# | [00_start_here](00_start_here.ipynb) | What is forgetting? |
# | [01_the_imbalance_problem](01_the_imbalance_problem.ipynb) | Why does it happen even when exemplars are kept? |
# | [02_cosine_normalization](02_cosine_normalization.ipynb) | What if lengths and biases could not differ? |
# | [03_less_forget_constraint](03_less_forget_constraint.ipynb) | How can features stay where they were? |
# | [04_margin_ranking](04_margin_ranking.ipynb) | How are old and new classes kept apart? |
# | [05_the_full_objective](05_the_full_objective.ipynb) | What does each part add? |
# | [06_reproducing_the_paper](06_reproducing_the_paper.ipynb) | Does it hold on CIFAR-100? |
# | [07_playground](07_playground.ipynb) | Everything in one panel |
#
# ## Words of this course, and of others
#
# (Some of them appear only in later notebooks.)
#
# | here | elsewhere |
# |---|---|
# | phase | task, step, experience |
# | `b50-5`: 50 classes, then 5 phases of 10 | B50, Inc10; "6 tasks" |
# | exemplars, replay | memory, buffer, rehearsal |
# | class embedding | class weight, weight vector, proxy |
# | teacher | old, previous or reference model |
# | CNN, NME | FC or linear classifier; nearest class mean, prototypes |
# | average incremental accuracy, last accuracy | "avg", "last", $\bar A$, $A_B$ |
# | LUCIR | UCIR; "Ours" in the paper's figures |
#
# ## What you have learned
#
# - In class-incremental learning, classes come in phases, and one head must tell all of them apart.
# - Fine-tuning on new classes alone forgets the old ones within one phase.
# - Only about a fifth of what the network no longer reads was merely outvoted by new classes.
# - The network is not too small: with all images it learns all classes.
# - Average incremental accuracy, last accuracy and forgetting are three different numbers.
#
# **Next:** [01_the_imbalance_problem](01_the_imbalance_problem.ipynb) keeps a few old images, and looks at what still
# goes wrong.
