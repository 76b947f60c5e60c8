"""The comparison must name every difference: run with the interpreter that has requirements.txt, `-m unittest`."""

import hashlib
import json
import pathlib
import tempfile
import unittest

import check
import invoice


class Check(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name)
        (self.folder / "archive").mkdir()
        self.published, self.ledger, self.archive = [], [], []
        for index in range(1, 6):
            one = invoice.make(1, index)
            sha256 = hashlib.sha256(one.xml).hexdigest()
            common = {"number": one.number, "id": f"{index:016x}", "attempts": 1}
            self.published.append(
                {
                    "number": one.number,
                    "sha256": sha256,
                    **one.amounts.to_json(),
                    "way": "pub",
                    "delay_ms": 0,
                    "sent_ns": index * 10**9,
                    "tries": 1,
                }
            )
            self.ledger.append({**common, **one.amounts.to_json(), "received_ns": index * 10**9 + 1})
            self.archive.append({**common, "sha256": sha256})
            (self.folder / "archive" / f"{one.number}.xml").write_bytes(one.xml)

    def differences(self):
        for name in ("published", "ledger", "archive"):
            text = "".join(json.dumps(record) + "\n" for record in getattr(self, name))
            (self.folder / f"{name}.jsonl").write_text(text)
        return check.compare(self.folder)[0]

    def assert_differs(self, part):
        self.assertTrue(any(part in difference for difference in self.differences()), self.differences())

    def test_agreement(self):
        self.assertEqual(self.differences(), [])

    def test_one_is_missing(self):
        self.ledger.pop()
        self.assert_differs("not in the ledger")
        self.archive.pop()
        self.assert_differs("not in the archive")

    def test_one_too_many(self):
        self.ledger.append(dict(self.ledger[0]))
        self.assert_differs("posted twice")

    def test_one_that_was_never_published(self):
        self.published.pop()
        self.assert_differs("never published")

    def test_another_amount(self):
        self.ledger[2]["vat"] = "0.01"
        self.assert_differs("published with")

    def test_a_changed_file(self):
        path = self.folder / "archive" / f"{self.published[0]['number']}.xml"
        path.write_bytes(path.read_bytes() + b"\n")
        self.assert_differs("SHA-256")

    def test_a_file_that_does_not_belong_there(self):
        (self.folder / "archive" / "RE-2026-000009.xml.part").write_bytes(b"")
        self.assert_differs("no published invoice")

    def test_a_deferred_one_came_early(self):
        self.published[1].update(way="dpub", delay_ms=500)
        self.assert_differs("ms early")

    def test_a_requeue_that_did_not_count(self):
        self.ledger.insert(0, {"put_off": self.ledger[0]["number"], "id": self.ledger[0]["id"], "attempts": 1})
        self.assert_differs("requeued at attempt 1")

    def test_ids_that_differ(self):
        self.archive[3]["id"] = "f" * 16
        self.assert_differs("in the archive")

    def test_a_refused_document(self):
        self.ledger.append({"refused": "not XML", "id": "f" * 16})
        self.assert_differs("refused not XML")

    def test_a_document_whose_figures_contradict_each_other(self):
        one = invoice.make(1, 1)
        self.assertEqual(invoice.read(one.xml), (one.number, one.amounts))
        for tag in ("LineTotalAmount", "CalculatedAmount", "BasisAmount", "GrandTotalAmount", "ChargeAmount"):
            before, after = one.xml.split(f"<ram:{tag}>".encode(), 1)
            with self.assertRaises(invoice.Refused, msg=tag):
                invoice.read(before + f"<ram:{tag}>1".encode() + after)


if __name__ == "__main__":
    unittest.main()
