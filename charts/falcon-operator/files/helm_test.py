"""What `helm test` runs in a pod of the operator's image: is the operator ready, and does it export metrics?"""

import sys
import time
import urllib.error
import urllib.request

# A Service's name and address may be known on this node a moment after the pod behind it is Ready.
PATIENCE_SECONDS = 30.0


def fetch(url: str) -> str:
    """Return the body of a 200 answer; end the test with a sentence for any other, and for none in time."""
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                return response.read().decode()
        except urllib.error.HTTPError as error:
            sys.exit(f"{url} answered {error.code}: {error.read().decode(errors='replace').strip()}")
        except OSError as error:
            if time.monotonic() > give_up:
                sys.exit(f"{url} cannot be reached: {error}")
        time.sleep(0.5)


base = sys.argv[1]
give_up = time.monotonic() + (float(sys.argv[2]) if len(sys.argv) > 2 else PATIENCE_SECONDS)
fetch(f"{base}/readyz")
print("the operator is ready")
metrics = fetch(f"{base}/metrics")
if "\nfalcon_operator_info" not in metrics:
    sys.exit(f"{base}/metrics has no falcon_operator_info: is this Service the operator's?")
print(f"the operator exports {sum(not line.startswith('#') for line in metrics.splitlines())} samples")
