"""What may differ on purpose."""

import re
from dataclasses import dataclass, field


@dataclass
class Deliberate:
    """Cases (a pattern) that may differ at places (a pattern), and why."""

    cases: str
    where: str
    why: str
    # What our value has to be there; any by default.
    ours: str = ".*"
    seen: int = field(default=0, repr=False)

    def covers(self, case, difference):
        patterns = [(self.cases, case), (self.where, difference.where), (self.ours, difference.ours)]
        return all(re.fullmatch(pattern, text, re.DOTALL) for pattern, text in patterns)


def unexpected(case, found, deliberate):
    """The differences that no entry covers; what is covered is counted."""
    rest = []
    for difference in found:
        covering = [entry for entry in deliberate if entry.covers(case, difference)]
        for entry in covering:
            entry.seen += 1
        if not covering:
            rest.append(difference)
    return rest


def report(case, found):
    """Prints what differs; 1 if anything does."""
    if not found:
        return 0
    print(f"DIFFERENT {case}")
    for difference in found:
        print(f"    {difference}")
    return 1


def stale(deliberate):
    """Prints entries that fit nothing; their number."""
    unused = [entry for entry in deliberate if not entry.seen]
    for entry in unused:
        print(f"STALE: nothing differs any more as this says: {entry}")
    return len(unused)


def show_logs(started, lines=30):
    """The ends of the servers' logs, for whoever has to find out."""
    for server in started:
        print(f"the log of {server.name} ends with")
        for line in server.log.read_text(errors="replace").splitlines()[-lines:]:
            print(f"    {line}")
