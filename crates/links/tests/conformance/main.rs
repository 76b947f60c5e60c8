//! The contract of `nsquorum_links::Links`, run against both implementations.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod admission;
#[path = "../support/diary.rs"]
mod diary;
mod epochs;
mod network;
mod order;
#[path = "../support/proxy.rs"]
mod proxy;
mod room;

macro_rules! conformance {
    ($($module:ident::$name:ident)*) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$module::$name(super::network::Network::memory().await).await; })*
        }
        mod sockets {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$module::$name(super::network::Network::sockets().await).await; })*
        }
    };
}

conformance! {
    order::frames_of_a_lane_arrive_once_and_in_order
    order::frames_of_any_size_arrive_whole
    order::a_full_lane_delays_no_other_lane_and_no_other_class
    room::a_receiver_that_holds_its_frames_stops_only_its_lane
    room::callers_that_wait_keep_their_order
    room::a_frame_longer_than_the_credit_passes_alone
    room::a_frame_longer_than_any_is_refused
    epochs::a_broken_link_comes_back_and_nothing_comes_twice
    epochs::a_silent_peer_is_noticed_and_its_return_too
    epochs::callers_that_wait_hear_that_the_link_went_down
    epochs::a_killed_node_is_noticed_and_its_next_start_too
    admission::a_node_with_another_secret_is_not_linked
    admission::a_node_of_another_cluster_is_not_linked
    admission::an_old_copy_of_a_node_is_not_linked
    admission::a_node_without_a_cluster_links_and_adopts
}
