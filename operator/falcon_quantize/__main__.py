"""`python -m falcon_quantize`: what images without the wheel's entry point run."""

import sys

from falcon_quantize.cli import main

sys.exit(main())
