"""The lab: figures, panels and live training for the notebooks. Needs Jupyter."""
