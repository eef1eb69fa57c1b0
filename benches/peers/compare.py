"""Runs the offline jobs of ours and of the peers in turn, each in its own process, and prints medians and ratios.

  compare.py BINARY EVENTS LABELS [-n 3] [-t 900] [--peers duckdb,polars,polars.nodistinct]

Seconds are the job's own, from query to result in memory; peak RSS is the process's by /usr/bin/time. A peer whose run took over 60 s is run once.
Check sums must agree wherever a peer computes the same column; the exit code says so.
"""
import argparse, json, os, re, statistics as st, subprocess, sys

a = argparse.ArgumentParser()
a.add_argument("binary"); a.add_argument("events", type=int); a.add_argument("labels", type=int)
a.add_argument("-n", type=int, default=3); a.add_argument("-t", type=int, default=900)
a.add_argument("--jobs", default="asof,roll"); a.add_argument("--peers", default="duckdb,polars,polars.nodistinct")
a = a.parse_args()
here = os.path.dirname(os.path.abspath(__file__))


def once(peer, job):
    cmd = [a.binary] if peer == "ours" else [sys.executable, os.path.join(here, "j3.py"), peer]
    # First in line for the kernel when memory runs out, before whatever started this.
    cmd = ["choom", "-n", "1000", "--", "/usr/bin/time", "-v", *cmd, job, str(a.events), str(a.labels)]
    try:
        p = subprocess.run(cmd, capture_output=True, text=True, timeout=a.t)
    except subprocess.TimeoutExpired:
        return {"failed": f"over {a.t} s"}
    found = [x for x in p.stdout.splitlines() if x.startswith("{")]
    if p.returncode or not found:
        return {"failed": re.sub(r"\s+", " ", p.stderr)[:200]}
    rss = int(re.search(r"Maximum resident.*: (\d+)", p.stderr)[1]) / 1024
    return {**json.loads(found[-1]), "rss": rss}


wrong = False
print(f"{a.events} events, {a.labels} labels; load average {os.getloadavg()[0]:.1f}")
print(f"{'job':5} {'who':18} {'seconds':>8} {'spread':>15} {'peak MB':>8} {'times ours':>10} {'our memory':>11}  check")
for job in a.jobs.split(","):
    # Without distinct is another plan of the rolling job only.
    who = ["ours"] + [p for p in a.peers.split(",") if job == "roll" or "." not in p]
    runs, stopped = {w: [] for w in who}, set()
    for _ in range(a.n):
        for w in who:
            if w in stopped:
                continue
            r = once(w, job)
            runs[w].append(r)
            if "failed" in r or (w != "ours" and r["secs"] > 60):
                stopped.add(w)
    good = {w: [r for r in rs if "failed" not in r] for w, rs in runs.items()}
    base = good["ours"]
    for w in who:
        if not good[w]:
            print(f"{job:5} {w:18} failed: {runs[w][0]['failed']}")
            wrong |= w == "ours"
            continue
        s, m = [r["secs"] for r in good[w]], max(r["rss"] for r in good[w])
        check = "-"
        if w != "ours" and base:
            mine, theirs = base[0]["check"], good[w][0]["check"]
            off = [c for c in theirs if c in mine and abs(mine[c] - theirs[c]) > 2e-7 * abs(theirs[c])]
            check = f"differs: {off}" if off else f"{len([c for c in theirs if c in mine])} sums agree"
            wrong |= bool(off)
        ratio = f"{st.median(s) / st.median([r['secs'] for r in base]):.2f}" if base else "-"
        memory = f"{max(r['rss'] for r in base) / m:.0%}" if base else "-"
        print(f"{job:5} {w:18} {st.median(s):8.2f} {min(s):7.2f}-{max(s):<7.2f} {m:8.0f} {ratio:>10} {memory:>11}  {check}", flush=True)
sys.exit(wrong)
