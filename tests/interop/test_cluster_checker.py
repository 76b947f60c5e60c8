"""The checker of the cluster must object to every broken promise, and only to broken ones: run with `python3 -m unittest`."""

import copy
import unittest

import cluster_checker

SECOND = 1_000_000_000
NODES = ("n1", "n2", "n3")


def good_run():
    """Thirty messages on two channels through three nodes; n1 dies from second 10.5 to 12.5 with a publish under way, a held message and a lost FIN."""
    sent = [
        {
            "body": body,
            "sum": f"s{body}",
            "way": "pub",
            "node": NODES[body % 3],
            "sent": body * SECOND,
            "sent_mono": body * SECOND,
            "answer_mono": body * SECOND + 500,
            "outcome": "OK",
        }
        for body in range(1, 31)
    ]
    sent.append({**sent[0], "body": 31, "sum": "s31", "node": "n1", "outcome": "not connected"})
    sent[-1].update(sent=10 * SECOND, sent_mono=10 * SECOND, answer_mono=11 * SECOND)
    received = {channel: [delivery(body) for body in range(1, 31)] for channel in ("a", "b")}
    # 3 was requeued, 4 held, both at nodes that live.
    for body, do in ((3, "req"), (4, "hold")):
        received["a"][body - 1].update(do=do, delay_ms=500 if do == "req" else 0, node="n2")
        later = received["a"][body - 1]["at"] + (5 if do == "hold" else 1) * SECOND
        received["a"].append({**delivery(body), "attempts": 2, "at": later})
    # 9 was held at n1 and 10 finished there, right before it died.
    for body, do in ((9, "hold"), (10, "fin")):
        received["b"][body - 1].update(do=do, node="n1", at=10 * SECOND)
        received["b"].append({**delivery(body), "at": 13 * SECOND, "node": "n2"})
    return cluster_checker.ClusterRun(
        sent=sent,
        received=received,
        deaths=[cluster_checker.Death("n1", 10 * SECOND + SECOND // 2, 12 * SECOND + SECOND // 2, 10 * SECOND + SECOND // 2)],
        redeliveries={"requeue": 1, "timeout": 1},
    )


def delivery(body):
    return {
        "connection": "a1",
        "node": "n2",
        "id": f"{body:016x}",
        "timestamp": str(body * SECOND),
        "attempts": 1,
        "body": body,
        "sum": f"s{body}",
        "at": (body + 20) * SECOND,
        "do": "fin",
        "delay_ms": 0,
    }


class ClusterChecker(unittest.TestCase):
    def rules_broken_by(self, change):
        run = copy.deepcopy(good_run())
        change(run)
        return set(cluster_checker.check(run).failures)

    def test_a_good_run_passes(self):
        self.assertEqual(cluster_checker.check(good_run()).failures, {})

    def test_an_error_at_a_node_that_lives(self):
        self.assertEqual(self.rules_broken_by(lambda run: run.sent[-1].update(node="n2")), {"survivors"})

    def test_an_error_at_a_dead_node_but_not_when_it_died(self):
        def change(run):
            run.sent[-1].update(sent=3 * SECOND, answer_mono=10 * SECOND + SECOND)

        self.assertEqual(self.rules_broken_by(change), {"survivors"})

    def test_an_unknown_outcome_that_is_stored_once(self):
        def change(run):
            for records in run.received.values():
                records.append(delivery(31))

        self.assertEqual(self.rules_broken_by(change), set())

    def test_an_unknown_outcome_that_is_stored_twice(self):
        def change(run):
            for records in run.received.values():
                records.append(delivery(31))
                records.append({**delivery(31), "id": f"{32:016x}"})

        self.assertEqual(self.rules_broken_by(change), {"once"})

    def test_an_ok_that_never_came(self):
        def change(run):
            for records in run.received.values():
                del records[29]

        self.assertEqual(self.rules_broken_by(change), {"once"})

    def test_an_ok_that_never_came_to_one_channel(self):
        self.assertLessEqual({"once", "same on channels"}, self.rules_broken_by(lambda run: run.received["a"].pop(7)))

    def test_a_message_that_nobody_sent(self):
        def change(run):
            for records in run.received.values():
                records.append({**delivery(31), "body": 99})

        self.assertEqual(self.rules_broken_by(change), {"bodies"})

    def test_a_gap_in_the_ids(self):
        def change(run):
            for records in run.received.values():
                for record in records:
                    if record["body"] == 30:
                        record["id"] = f"{40:016x}"

        self.assertEqual(self.rules_broken_by(change), {"dense ids"})

    def test_ids_that_differ_between_channels(self):
        def change(run):
            one, other = run.received["a"][19], run.received["a"][20]
            one["id"], other["id"] = other["id"], one["id"]

        self.assertIn("same on channels", self.rules_broken_by(change))

    def test_a_message_that_came_again_while_a_consumer_held_it(self):
        self.assertEqual(self.rules_broken_by(lambda run: run.received["a"][-1].update(at=25 * SECOND)), {"held"})

    def test_a_message_that_came_again_after_it_was_finished(self):
        self.assertEqual(self.rules_broken_by(lambda run: run.received["a"].append(dict(delivery(20), at=45 * SECOND))), {"finished"})

    def test_a_fin_long_before_the_death_is_no_excuse(self):
        def change(run):
            run.received["b"][9].update(at=7 * SECOND)

        self.assertEqual(self.rules_broken_by(change), {"finished"})

    def test_more_attempts_than_deliveries(self):
        self.assertEqual(self.rules_broken_by(lambda run: run.received["b"][20].update(attempts=2)), {"attempts"})

    def test_a_delivery_that_was_looked_at_after_its_node_had_died(self):
        def change(run):
            run.received["b"][8].update(at=11 * SECOND)
            run.received["b"][-2].update(at=10 * SECOND + SECOND // 2 + 1)

        self.assertEqual(self.rules_broken_by(change), set())

    def test_an_error_of_the_protocol(self):
        broken = self.rules_broken_by(lambda run: run.received["a"].append({"error": "E_FIN_FAILED FIN", "at": 0}))
        self.assertEqual(broken, {"client"})

    def test_the_end_of_a_connection_is_no_error(self):
        broken = self.rules_broken_by(lambda run: run.received["a"].append({"error": "connection closed", "at": 0}))
        self.assertEqual(broken, set())

    def test_redeliveries_that_nobody_counted(self):
        self.assertEqual(self.rules_broken_by(lambda run: run.redeliveries.update(requeue=0)), {"accounts"})

    def test_redeliveries_that_nobody_saw(self):
        for cause in ("requeue", "link_lost", "disconnect"):
            broken = self.rules_broken_by(lambda run, cause=cause: run.redeliveries.update({cause: 3}))
            self.assertEqual(broken, {"accounts"}, cause)

    def test_a_message_that_was_given_back_and_never_came_again(self):
        self.assertIn("once", self.rules_broken_by(lambda run: run.received["a"].pop()))


if __name__ == "__main__":
    unittest.main()
