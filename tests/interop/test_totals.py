"""The nodes' statistics together."""

import unittest

import totals


def channel(name, **counts):
    return dict.fromkeys(totals.CHANNEL_COUNTS, 0) | counts | {"channel_name": name}


def answer(name, channels, **counts):
    return {"topics": [dict.fromkeys(totals.TOPIC_COUNTS, 0) | counts | {"topic_name": name, "channels": channels}]}


class Totals(unittest.TestCase):
    def test_counts_of_the_leader_and_clients_of_all(self):
        leading = answer("t", [channel("c", depth=3, client_count=1)], message_count=7)
        following = answer("t", [channel("c", client_count=2), channel("new")])
        topic = totals.of_topic("t", [following, leading, {"topics": None}, answer("other", [channel("c", depth=9)], message_count=9)])
        self.assertEqual(topic["message_count"], 7)
        shown = {one["channel_name"]: (one["depth"], one["client_count"]) for one in topic["channels"]}
        self.assertEqual(shown, {"c": (3, 3), "new": (0, 0)})

    def test_a_topic_without_channels_is_not_known_yet(self):
        self.assertIsNone(totals.of_topic("t", [answer("t", []), {"topics": []}]))


if __name__ == "__main__":
    unittest.main()
