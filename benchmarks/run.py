"""Run every benchmark and write its result file.

python -m benchmarks.run
"""

import subprocess
import sys

BENCHMARKS = [
    "fit_speed",
    "speed",
    "workers",
    "fashion_mnist",
    "cross_validation",
    "feature_cache",
    "adapters",
    "better_at_the_end",
    "distillation",  # after better_at_the_end, whose networks are its teachers
    "proxies",
    "when_it_helps",
    "ants_and_bees",
    "cats_and_dogs",
    "solar_cells",
]


def main() -> None:
    """Run the benchmarks one after the other: two at once would measure each other."""
    for name in BENCHMARKS:
        print(f"== {name}", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}", "--write"], check=True)


if __name__ == "__main__":
    main()
