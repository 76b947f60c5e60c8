use std::time::Duration;

use super::*;

const fn at(secs: u64) -> Moment {
    Moment {
        monotonic: Monotonic::from_nanos(secs * 1_000_000_000),
        wall: WallTime::from_nanos((1_000_000 + secs) * 1_000_000_000),
    }
}

fn producer(host: &str, remote_port: u16) -> ProducerDescription {
    ProducerDescription {
        remote_address: format!("10.0.0.1:{remote_port}"),
        hostname: host.to_owned(),
        broadcast_address: host.to_owned(),
        tcp_port: 4150,
        http_port: 4151,
        version: "1.3.0".to_owned(),
        topology_zone: String::new(),
        topology_region: String::new(),
    }
}

fn topic(name: &str) -> TopicName {
    name.parse().unwrap()
}

fn channel(name: &str) -> ChannelName {
    name.parse().unwrap()
}

/// The hosts of a topic's producers.
fn hosts(registrations: &Registrations, name: &str, now: Moment) -> Vec<String> {
    let topic = topic(name);
    registrations
        .producers(&topic, now)
        .map(|producer| producer.hostname.clone())
        .collect()
}

fn channels(registrations: &Registrations, name: &str) -> Vec<String> {
    registrations.channels(&topic(name)).map(ToString::to_string).collect()
}

/// Two producers, `n1` with the channels `c1` and `c2#ephemeral` of `t`, and `n2` with `t`.
fn two() -> (Registrations, PeerId, PeerId) {
    let mut registrations = Registrations::new(Lifetimes::default());
    let first = registrations.add_peer(producer("n1", 1), at(0));
    let second = registrations.add_peer(producer("n2", 2), at(0));
    for name in ["c1", "c2#ephemeral"] {
        registrations
            .register(first, &topic("t"), Some(&channel(name)))
            .unwrap();
    }
    registrations.register(second, &topic("t"), None).unwrap();
    (registrations, first, second)
}

#[test]
fn a_channel_is_registered_with_its_topic() {
    let (registrations, _, _) = two();
    assert_eq!(hosts(&registrations, "t", at(1)), ["n1", "n2"]);
    assert_eq!(channels(&registrations, "t"), ["c1", "c2#ephemeral"]);
    assert!(!registrations.has_topic(&topic("u")));
}

#[test]
fn keys_outlive_their_producers_and_ephemeral_ones_their_last_unregister_only() {
    let (mut registrations, first, second) = two();
    registrations.remove_peer(second);
    assert_eq!(hosts(&registrations, "t", at(1)), ["n1"]);
    registrations.unregister(first, &topic("t"), Some(&channel("c1")));
    registrations.unregister(first, &topic("t"), Some(&channel("c2#ephemeral")));
    assert_eq!(channels(&registrations, "t"), ["c1"]);
    registrations
        .register(first, &topic("t"), Some(&channel("c2#ephemeral")))
        .unwrap();
    registrations.remove_peer(first);
    assert_eq!(
        channels(&registrations, "t"),
        ["c1", "c2#ephemeral"],
        "a lost connection takes no key"
    );
    assert!(registrations.has_topic(&topic("t")));
    assert_eq!(hosts(&registrations, "t", at(1)), [""; 0]);

    let peer = registrations.add_peer(producer("n3", 3), at(2));
    registrations
        .register(peer, &topic("u#ephemeral"), Some(&channel("c")))
        .unwrap();
    registrations.unregister(peer, &topic("u#ephemeral"), None);
    assert!(!registrations.has_topic(&topic("u#ephemeral")));
    assert_eq!(channels(&registrations, "u#ephemeral"), ["c"], "as in nsqlookupd");
}

#[test]
fn unregistering_a_topic_leaves_its_channels_without_the_producer() {
    let (mut registrations, first, _) = two();
    registrations.unregister(first, &topic("t"), None);
    assert_eq!(hosts(&registrations, "t", at(1)), ["n2"]);
    assert!(!registrations.places().contains_key("channel:t:c1"));
    assert_eq!(channels(&registrations, "t"), ["c1", "c2#ephemeral"]);
}

#[test]
fn a_producer_that_does_not_ping_is_hidden_until_it_does() {
    let (mut registrations, first, _) = two();
    registrations.ping(first, at(100));
    assert_eq!(hosts(&registrations, "t", at(300)), ["n1", "n2"]);
    assert_eq!(hosts(&registrations, "t", at(301)), ["n1"]);
    assert_eq!(registrations.nodes(at(301)).len(), 1);
    assert_eq!(hosts(&registrations, "t", at(401)), [""; 0]);
    registrations.ping(first, at(500));
    assert_eq!(hosts(&registrations, "t", at(501)), ["n1"]);
}

#[test]
fn a_tombstone_hides_a_producer_of_one_topic_for_its_lifetime() {
    let (mut registrations, first, _) = two();
    registrations.register(first, &topic("u"), None).unwrap();
    registrations.tombstone(&topic("t"), b"n1:4151", at(10));
    registrations.tombstone(&topic("t"), b"n2:4150", at(10));
    assert_eq!(hosts(&registrations, "t", at(54)), ["n2"], "named by the HTTP port");
    assert_eq!(hosts(&registrations, "u", at(54)), ["n1"]);
    let marks = |now| registrations.nodes(now).remove(0).topics;
    assert_eq!(marks(at(54)), [(topic("t"), true), (topic("u"), false)]);
    assert_eq!(marks(at(55)), [(topic("t"), false), (topic("u"), false)]);
    assert_eq!(hosts(&registrations, "t", at(55)), ["n1", "n2"]);
}

#[test]
fn registering_again_does_not_end_a_tombstone_and_unregistering_does() {
    let (mut registrations, first, _) = two();
    registrations.tombstone(&topic("t"), b"n1:4151", at(10));
    registrations.register(first, &topic("t"), None).unwrap();
    assert_eq!(hosts(&registrations, "t", at(11)), ["n2"]);
    registrations.unregister(first, &topic("t"), None);
    registrations.register(first, &topic("t"), None).unwrap();
    assert_eq!(hosts(&registrations, "t", at(11)), ["n1", "n2"]);
}

#[test]
fn what_is_created_over_http_has_no_producers_and_what_is_deleted_is_gone() {
    let (mut registrations, _, _) = two();
    registrations.create(&topic("v"), Some(&channel("c"))).unwrap();
    assert_eq!(
        (
            hosts(&registrations, "v", at(1)).len(),
            channels(&registrations, "v").len()
        ),
        (0, 1)
    );
    assert!(registrations.delete_channel(&topic("v"), &channel("c")));
    assert!(!registrations.delete_channel(&topic("v"), &channel("c")));
    registrations.delete_topic(&topic("t"));
    registrations.delete_topic(&topic("v"));
    registrations.delete_topic(&topic("never"));
    assert_eq!(registrations.topics().count(), 0);
    assert_eq!(channels(&registrations, "t"), [""; 0]);
    assert_eq!(registrations.places().keys().collect::<Vec<_>>(), ["client::"]);
    assert_eq!(registrations.places, 0, "nothing is left that counts");
}

#[test]
fn the_database_has_an_end() {
    let (mut registrations, first, second) = two();
    let before = registrations.places;
    registrations
        .register(second, &topic("t"), Some(&channel("c1")))
        .unwrap();
    registrations
        .register(second, &topic("t"), Some(&channel("c1")))
        .unwrap();
    assert_eq!(registrations.places, before + 1, "only what is new counts");
    registrations.places = PLACES_MAX - 3;
    assert_eq!(
        registrations.register(first, &topic("w"), Some(&channel("c"))),
        Err(Full)
    );
    registrations.places = PLACES_MAX - 1;
    assert_eq!(registrations.create(&topic("w"), Some(&channel("c"))), Err(Full));
}

#[test]
fn debug_shows_every_producer_at_every_key_as_nsqlookupd_does() {
    let (mut registrations, _, _) = two();
    registrations.tombstone(&topic("t"), b"n2:4151", at(10));
    let places = registrations.places();
    let keys: Vec<_> = places.keys().collect();
    assert_eq!(keys, ["channel:t:c1", "channel:t:c2#ephemeral", "client::", "topic:t:"]);
    let second = serde_json::to_string(&places["topic:t:"][1]).unwrap();
    assert_eq!(
        second,
        r#"{"broadcast_address":"n2","hostname":"n2","http_port":4151,"id":"10.0.0.1:2","last_update":1000000000000000,"tcp_port":4150,"tombstoned":true,"tombstoned_at":1000010000000000,"topology_region":"","topology_zone":"","version":"1.3.0"}"#
    );
    let never = serde_json::to_value(&places["client::"][0]).unwrap();
    assert_eq!(
        (&never["tombstoned"], &never["tombstoned_at"]),
        (&false.into(), &(-6_795_364_578_871_345_152_i64).into())
    );
    assert_eq!(Lifetimes::default().tombstone_lifetime, Duration::from_secs(45));
}
