"""lucir_edu: LUCIR (Hou et al., CVPR 2019), small enough to take apart.

The modules, from the bottom up: ``config``, ``datasets``, ``losses``, ``metrics``, ``model``,
``stream``, ``memory``, ``loader``, ``trainer``, ``runs``; ``lab`` on top needs Jupyter.
"""

__version__ = "0.1.0"
