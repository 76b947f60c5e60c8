//! What holds for any answer of an auth server; asked by tests, and by the fuzzer (`fuzz/`), for which alone it is public.

use nsquorum_protocol::{ChannelName, TopicName};

use super::Grants;

/// Reads an answer and asks it what it allows.
pub fn answer(json: &[u8]) {
    let Ok(grants) = Grants::parse(json) else {
        return;
    };
    assert!(
        grants.time_to_live.as_secs() > 0,
        "an answer that never holds was taken"
    );
    let topics = ["t", "orders.v2", "logs#ephemeral"].map(|name| TopicName::try_from(name).expect("valid"));
    let channel = ChannelName::try_from("archive").expect("valid");
    for topic in &topics {
        let allowed = grants.allow(topic, None) || grants.allow(topic, Some(&channel));
        assert!(!allowed || grants.count() > 0, "no grant allows it");
    }
}
