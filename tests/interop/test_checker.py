"""The checker must object to every broken promise, and only to broken ones: run with `python3 -m unittest`."""

import copy
import unittest

import checker

SECOND = 1_000_000_000


def good_run():
    """Ten messages on two channels: 4 and 5 in one MPUB, 7 deferred, 3 requeued on a, 2 timed out on b."""
    sent = []
    for body in range(1, 11):
        way = {4: "mpub", 5: "mpub", 7: "dpub"}.get(body, "pub")
        moment = 4 if body == 5 else body
        sent.append(
            {
                "body": body,
                "sum": f"s{body}",
                "bytes": 20,
                "way": way,
                "delay_ms": 900 if body == 7 else 0,
                "sent": moment * SECOND,
                "sent_mono": moment * SECOND,
                "answer_mono": moment * SECOND + 500,
                "outcome": "OK",
            }
        )
    received = {}
    for channel in ("a", "b"):
        records = [delivery(channel, body) for body in range(1, 11)]
        if channel == "a":
            records[2].update(do="req", delay_ms=500)
            records.append(dict(delivery(channel, 3), attempts=2, at=records[2]["at"] + SECOND))
        else:
            records[1].update(do="hold")
            records.append(dict(delivery(channel, 2), attempts=2, at=records[1]["at"] + 5 * SECOND))
        for order, record in enumerate(records, 1):
            record["order"] = order
        received[channel] = records
    stats = {
        "message_count": 10,
        "message_bytes": 200,
        "depth": 0,
        "channels": [
            {"channel_name": "a", "message_count": 10, "requeue_count": 1, "timeout_count": 0, **EMPTY},
            {"channel_name": "b", "message_count": 10, "requeue_count": 0, "timeout_count": 1, **EMPTY},
        ],
    }
    return checker.Run(count=10, sent=sent, received=received, stats=stats, began_ns=0, ended_ns=100 * SECOND)


EMPTY = {"depth": 0, "in_flight_count": 0, "deferred_count": 0}


def delivery(channel, body):
    return {
        "connection": f"{channel}1",
        "id": f"{body:016x}",
        "timestamp": str(body * SECOND),
        "attempts": 1,
        "body": body,
        "sum": f"s{body}",
        "at": (body + 20) * SECOND,
        "do": "fin",
        "delay_ms": 0,
    }


class Checker(unittest.TestCase):
    def rules_broken_by(self, change, **options):
        run = copy.deepcopy(good_run())
        for name, value in options.items():
            setattr(run, name, value)
        change(run)
        return set(checker.check(run).failures)

    def test_a_good_run_passes(self):
        self.assertEqual(self.rules_broken_by(lambda run: None), set())

    def test_the_counts_are_those_of_the_records(self):
        counts = checker.check(good_run()).counts
        self.assertEqual(counts, {"deferred": 1, "in mpub": 2, "req a": 1, "hold a": 0, "req b": 0, "hold b": 1})

    def test_a_refused_publish(self):
        broken = self.rules_broken_by(lambda run: run.sent[0].update(outcome="E_PUB_FAILED PUB failed"))
        self.assertEqual(broken, {"answers"})

    def test_a_producer_that_sent_less(self):
        self.assertIn("producer", self.rules_broken_by(lambda run: run.sent.pop()))

    def test_an_error_that_a_client_saw(self):
        broken = self.rules_broken_by(lambda run: run.received["a"].append({"error": "E_FIN_FAILED FIN"}))
        self.assertEqual(broken, {"client"})

    def test_a_lost_message(self):
        self.assertIn("once", self.rules_broken_by(lambda run: run.received["a"].pop(0)))

    def test_a_message_lost_on_both_channels(self):
        def change(run):
            for records in run.received.values():
                del records[5]

        self.assertEqual(self.rules_broken_by(change), {"once", "dense ids"})

    def test_a_message_delivered_again_after_it_was_finished(self):
        def change(run):
            again = dict(run.received["a"][0], attempts=2, order=99)
            run.received["a"].append(again)

        self.assertEqual(self.rules_broken_by(change), {"once"})

    def test_a_message_stored_twice(self):
        def change(run):
            for channel, records in run.received.items():
                records.append(dict(delivery(channel, 1), id=f"{11:016x}", order=99))

        self.assertLessEqual({"once", "dense ids"}, self.rules_broken_by(change))

    def test_a_requeued_message_that_never_came_again(self):
        self.assertIn("once", self.rules_broken_by(lambda run: run.received["a"].pop()))

    def test_attempts_that_skip_one(self):
        broken = self.rules_broken_by(lambda run: run.received["a"][-1].update(attempts=3))
        self.assertEqual(broken, {"attempts"})

    def test_attempts_that_stand_still(self):
        self.assertIn("attempts", self.rules_broken_by(lambda run: run.received["a"][-1].update(attempts=1)))

    def test_a_first_delivery_that_is_no_first_attempt(self):
        broken = self.rules_broken_by(lambda run: run.received["b"][8].update(attempts=2))
        self.assertEqual(broken, {"attempts"})

    def test_a_damaged_body(self):
        self.assertEqual(self.rules_broken_by(lambda run: run.received["b"][4].update(sum="other")), {"bodies"})

    def test_a_body_that_nobody_sent(self):
        self.assertIn("bodies", self.rules_broken_by(lambda run: run.received["b"][4].update(body=77)))

    def test_an_id_that_is_no_id(self):
        self.assertIn("ids", self.rules_broken_by(lambda run: run.received["b"][4].update(id="5")))

    def test_ids_that_differ_between_channels(self):
        def change(run):
            one, other = run.received["b"][7], run.received["b"][8]
            one["id"], other["id"] = other["id"], one["id"]

        self.assertIn("same on channels", self.rules_broken_by(change))
        self.assertIn("same on channels", self.rules_broken_by(change, stock=True))

    def test_a_timestamp_that_differs_between_channels(self):
        broken = self.rules_broken_by(lambda run: run.received["b"][4].update(timestamp=str(6 * SECOND)))
        self.assertEqual(broken, {"same on channels"})

    def test_a_timestamp_that_changes_with_a_redelivery(self):
        broken = self.rules_broken_by(lambda run: run.received["a"][-1].update(timestamp=str(9 * SECOND)))
        self.assertIn("timestamps", broken)

    def test_a_timestamp_outside_of_the_run(self):
        self.assertIn("timestamps", self.rules_broken_by(lambda run: None, began_ns=2 * SECOND))

    def test_a_gap_in_the_ids(self):
        def change(run):
            for records in run.received.values():
                for record in records:
                    if record["body"] >= 8:
                        record["id"] = f"{record['body'] + 1:016x}"

        self.assertEqual(self.rules_broken_by(change), {"dense ids"})
        self.assertEqual(self.rules_broken_by(change, stock=True), set())

    def test_ids_that_contradict_the_order_of_answers(self):
        def change(run):
            swap = {8: 9, 9: 8}
            for records in run.received.values():
                for record in records:
                    record["id"] = f"{swap.get(record['body'], record['body']):016x}"

        self.assertIn("commit order", self.rules_broken_by(change))

    def test_ids_of_publishes_that_were_under_way_together_have_any_order(self):
        def change(run):
            swap = {8: 9, 9: 8}
            for record in run.sent[7:9]:
                record.update(sent_mono=8 * SECOND, answer_mono=9 * SECOND)
            for records in run.received.values():
                for record in records:
                    record["id"] = f"{swap.get(record['body'], record['body']):016x}"
                records[7], records[8] = records[8], records[7]

        self.assertEqual(self.rules_broken_by(change) - {"same on channels"}, set())

    def test_an_mpub_that_is_torn_apart(self):
        def change(run):
            swap = {5: 6, 6: 5}
            run.sent[5].update(sent_mono=4 * SECOND + 1)  # under way together with the MPUB
            for records in run.received.values():
                for record in records:
                    record["id"] = f"{swap.get(record['body'], record['body']):016x}"
                records[4], records[5] = records[5], records[4]

        self.assertEqual(self.rules_broken_by(change), {"commit order"})

    def test_first_deliveries_out_of_order(self):
        def change(run):
            run.received["a"][7], run.received["a"][8] = run.received["a"][8], run.received["a"][7]

        self.assertEqual(self.rules_broken_by(change), {"delivery order"})
        self.assertEqual(self.rules_broken_by(change, stock=True), set())

    def test_what_a_lowered_rdy_sends_back_may_come_to_another_connection_late(self):
        def swap(run):
            run.received["a"][7], run.received["a"][8] = run.received["a"][8], run.received["a"][7]

        def swap_beside_another(run):
            swap(run)
            run.received["a"][2].update(connection="a2")

        self.assertEqual(self.rules_broken_by(swap, lowers_rdy=True), {"delivery order"})
        self.assertEqual(self.rules_broken_by(swap_beside_another), {"delivery order"})
        self.assertEqual(self.rules_broken_by(swap_beside_another, lowers_rdy=True), set())

    def test_first_deliveries_on_two_connections_need_no_common_order(self):
        def change(run):
            run.received["b"][7].update(connection="b2")
            run.received["b"].append(run.received["b"].pop(7))

        self.assertEqual(self.rules_broken_by(change), set())

    def test_a_deferred_message_may_come_late_but_not_early(self):
        def late(run):
            run.received["a"].append(run.received["a"].pop(6))

        self.assertEqual(self.rules_broken_by(late), set())
        broken = self.rules_broken_by(lambda run: run.received["a"][6].update(at=7 * SECOND + SECOND // 2))
        self.assertEqual(broken, {"never early"})

    def test_a_requeued_message_that_comes_early(self):
        def change(run):
            run.received["a"][-1]["at"] = run.received["a"][2]["at"] + SECOND // 5

        self.assertEqual(self.rules_broken_by(change), {"never early"})

    def test_a_timeout_that_strikes_early(self):
        def change(run):
            run.received["b"][-1]["at"] = run.received["b"][1]["at"] + SECOND

        self.assertEqual(self.rules_broken_by(change), {"never early"})

    def test_statistics_that_count_something_else(self):
        for name in ("message_count", "message_bytes", "depth"):
            broken = self.rules_broken_by(lambda run, name=name: run.stats.update({name: 5}))
            self.assertEqual(broken, {"stats"}, name)
        for name in ("message_count", "requeue_count", "timeout_count", *EMPTY):
            broken = self.rules_broken_by(lambda run, name=name: run.stats["channels"][0].update({name: 7}))
            self.assertEqual(broken, {"stats"}, name)
        self.assertEqual(self.rules_broken_by(lambda run: run.stats["channels"].pop()), {"stats"})


if __name__ == "__main__":
    unittest.main()
