"""`python -m ngp_warp.cli`, which torchrun can start."""

import sys

from ngp_warp.cli.app import main

sys.exit(main())
