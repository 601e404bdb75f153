"""What a fresh process pays."""

import subprocess
import sys


class Startup:
    """Whole processes."""

    def time_import(self):
        subprocess.run([sys.executable, "-c", "import nconv"], check=True)

    def time_first_call(self):
        subprocess.run([sys.executable, "-c", "import nconv; nconv.convolve([1.0, 2.0], [1.0])"], check=True)
