import sys

from lucir_edu.cli import main

sys.exit(main())
