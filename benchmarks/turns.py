"""Ways to do one thing, timed in turns in one process: what disturbs one disturbs them all."""

import statistics
import time


def compare(title, rounds, ways):
    """Runs each of `ways` {name: function} once per round, after one that does not count; the first is the measure."""
    times = {name: [] for name in ways}
    for round_ in range(rounds + 1):
        for name, run in ways.items():
            start = time.perf_counter()
            run()
            if round_:
                times[name].append(1e3 * (time.perf_counter() - start))
    base = statistics.median(next(iter(times.values())))
    print(title)
    for name, taken in times.items():
        median = statistics.median(taken)
        print(f"  {name:<28} {median:8.1f} ms  best {min(taken):8.1f}  {base / median:6.1f}x")
