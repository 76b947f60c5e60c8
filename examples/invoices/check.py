"""Compares what the ledger and the archive have with what was published."""

import hashlib
import json
import pathlib

import invoice

# Due times are counted on the node's clock and these on the clients': on one machine they hardly differ.
CLOCK_TOLERANCE_NS = 50_000_000


def lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def numbers(path):
    """The numbers that a consumer has dealt with so far; the last line may still be in the making."""
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return set()
    records = (json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n"))
    return {record["number"] for record in records if "number" in record}


def compare(folder):
    """Returns the differences (none if all agree), the number of invoices and the publisher's totals."""
    folder = pathlib.Path(folder)
    differences = []
    published = by_number(lines(folder / "published.jsonl"), "published", differences)
    ledger_lines = lines(folder / "ledger.jsonl")
    ledger = by_number(ledger_lines, "posted", differences)
    archive_lines = lines(folder / "archive.jsonl")
    archive = by_number(archive_lines, "filed", differences)

    for name, records in (("ledger", ledger), ("archive", archive)):
        for number in sorted(published.keys() - records.keys()):
            differences.append(f"{number}: published ({published[number]['way']}) and not in the {name}")
        for number in sorted(records.keys() - published.keys()):
            differences.append(f"{number}: in the {name} and never published")
    for name, records in (("ledger", ledger_lines), ("archive", archive_lines)):
        for record in records:
            for trouble in ("refused", "conflict"):
                if trouble in record:
                    differences.append(f"{name}: {trouble} {record[trouble]} (message {record['id']})")

    published_total = sum((invoice.Amounts.from_json(one) for one in published.values()), invoice.Amounts())
    ledger_total = sum((invoice.Amounts.from_json(one) for one in ledger.values()), invoice.Amounts())
    for number, record in sorted(ledger.items()):
        if number not in published:
            continue
        stated, posted = (invoice.Amounts.from_json(one) for one in (published[number], record))
        if stated != posted:
            differences.append(f"{number}: published with {stated}, posted with {posted}")
        due_ns = published[number]["sent_ns"] + published[number]["delay_ms"] * 1_000_000
        if record["received_ns"] < due_ns - CLOCK_TOLERANCE_NS:
            early_ms = (due_ns - record["received_ns"]) // 1_000_000
            differences.append(f"{number}: deferred by {published[number]['delay_ms']} ms, came {early_ms} ms early")
    if published_total != ledger_total:
        differences.append(f"published {published_total}, posted {ledger_total}")

    for record in ledger_lines:
        if "put_off" in record:
            posted = ledger.get(record["put_off"])
            if posted is not None and posted["id"] == record["id"] and posted["attempts"] <= record["attempts"]:
                differences.append(
                    f"{record['put_off']}: requeued at attempt {record['attempts']}, "
                    f"then posted at attempt {posted['attempts']}"
                )

    files = {path.name for path in (folder / "archive").iterdir()}
    for name in sorted(files - {f"{number}.xml" for number in published}):
        differences.append(f"archive: {name} is no published invoice")
    for number, record in sorted(published.items()):
        path = folder / "archive" / f"{number}.xml"
        if path.name in files:
            filed = hashlib.sha256(path.read_bytes()).hexdigest()
            if filed != record["sha256"]:
                differences.append(f"{number}: published with SHA-256 {record['sha256']}, filed with {filed}")
    for number, record in sorted(published.items()):
        same = [one["id"] for one in (ledger.get(number), archive.get(number)) if one is not None]
        # Sent twice it may be stored twice, and each consumer takes the message that it sees first.
        if record["tries"] == 1 and len(set(same)) == 2:
            differences.append(f"{number}: message {same[0]} in the ledger and {same[1]} in the archive")
    return differences, len(published), published_total


def by_number(records, done, differences):
    found = {}
    for record in records:
        if "number" in record:
            if record["number"] in found:
                differences.append(f"{record['number']}: {done} twice")
            found[record["number"]] = record
    return found


def ways(folder):
    """How many invoices went each way, for the report."""
    folder = pathlib.Path(folder)
    counts = {"pub": 0, "mpub": 0, "dpub": 0}
    for record in lines(folder / "published.jsonl"):
        counts[record["way"]] += 1
    counts["put off"] = sum("put_off" in record for record in lines(folder / "ledger.jsonl"))
    counts["again"] = sum("again" in r for name in ("ledger", "archive") for r in lines(folder / f"{name}.jsonl"))
    return counts
