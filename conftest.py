"""The network is cut off in every process that the tests start, notebooks' kernels among them."""

import os
from pathlib import Path

OFFLINE = Path(__file__).parent / "tests" / "notebooks" / "offline"
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(OFFLINE), *filter(None, [os.environ.get("PYTHONPATH")])]
)
