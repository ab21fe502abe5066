"""Shows the variables that lead to this process's queue-proxy, and keeps it alive until its own input ends."""

import json
import os
import sys

print(json.dumps({name: value for name, value in os.environ.items() if name.startswith("ZIPLINE_")}), flush=True)
sys.stdin.read()
