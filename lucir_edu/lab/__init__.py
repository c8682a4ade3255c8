"""The lab: figures, panels and live training for the notebooks. Needs Jupyter."""

from lucir_edu.hardware import leave_a_core

leave_a_core()

# Notebooks compute on the CPU, even where there is a GPU: what they say was measured on a CPU, and
# tensors that a cell or a learner makes are there
DEVICE = "cpu"
