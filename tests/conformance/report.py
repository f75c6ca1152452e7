import time
from collections import Counter, defaultdict

from .cases import choices, relevant_cases
from .check import Skipped, check


def main():
    t = time.time()
    cases = relevant_cases()
    print(len(cases), time.time() - t)
    c = Counter()
    oracles = Counter()
    ops = defaultdict(Counter)
    for case in cases:
        for active in list(choices(case)) or [()]:
            t = time.time()
            try:
                o = check(case, active)
                c["pass"] += 1
                oracles[o.oracle] += 1
                ops[case.subject]["pass"] += 1
                if o.oracle != "reference evaluator":
                    print("ORT", case.name, active, o.oracle)
                if o.ties:
                    print("TIES", case.name, active, o.ties, o.compared)
            except Skipped as e:
                c["skip " + str(e)[:80]] += 1
                ops[case.subject]["skip"] += 1
            except Exception as e:
                c["fail"] += 1
                ops[case.subject]["fail"] += 1
                print(
                    "FAIL",
                    case.name,
                    active,
                    case.operators[:6],
                    [a for n in case.model.graph.node for a in n.attribute] if 0 else "",
                    type(e).__name__,
                    str(e)[:300].replace("\n", " "),
                    flush=True,
                )
            if time.time() - t > 1:
                print("SLOW", case.name, time.time() - t)
    for k, v in c.most_common():
        print(v, k)
    for k, v in sorted(ops.items()):
        print(k, dict(v))


main()
