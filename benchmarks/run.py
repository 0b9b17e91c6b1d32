"""Run every benchmark and write its result file.

python -m benchmarks.run
"""

import subprocess
import sys

BENCHMARKS = ["fit_speed", "speed", "fashion_mnist", "feature_cache", "adapters"]


def main() -> None:
    """Run the benchmarks one after the other: two at once would measure each other."""
    for name in BENCHMARKS:
        print(f"== {name}", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}", "--write"], check=True)


if __name__ == "__main__":
    main()
