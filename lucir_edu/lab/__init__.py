"""The lab: figures, panels and live training for the notebooks. Needs Jupyter."""

from lucir_edu.hardware import leave_a_core

leave_a_core()
