//! The table of endpoints.

use nsquorum_http::{Method, Router};

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Ping,
    Info,
    Stats,
    Metrics,
    ClusterStatus,
    Pub,
    Mpub,
    /// For one channel: nsqd has no such thing.
    ChannelMpub,
    Topic(TopicAction),
    Channel(ChannelAction),
    /// /config/…
    Setting(SettingAction),
    SetBlockRate,
    FreeMemory,
}

/// What can be done to a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SettingAction {
    Show,
    Change,
}

/// What can be done to a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TopicAction {
    Create,
    Delete,
    Empty,
    Pause,
    Unpause,
}

/// What can be done to a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChannelAction {
    Create,
    Delete,
    Empty,
    Pause,
    Unpause,
}

pub(super) const ROUTER: Router<Endpoint> = Router::new(&[
    (Method::GET, "/ping", Endpoint::Ping),
    (Method::GET, "/info", Endpoint::Info),
    (Method::GET, "/stats", Endpoint::Stats),
    (Method::GET, "/metrics", Endpoint::Metrics),
    (Method::GET, "/cluster/status", Endpoint::ClusterStatus),
    (Method::POST, "/pub", Endpoint::Pub),
    (Method::POST, "/mpub", Endpoint::Mpub),
    (Method::POST, "/channel/mpub", Endpoint::ChannelMpub),
    (Method::POST, "/topic/create", Endpoint::Topic(TopicAction::Create)),
    (Method::POST, "/topic/delete", Endpoint::Topic(TopicAction::Delete)),
    (Method::POST, "/topic/empty", Endpoint::Topic(TopicAction::Empty)),
    (Method::POST, "/topic/pause", Endpoint::Topic(TopicAction::Pause)),
    (Method::POST, "/topic/unpause", Endpoint::Topic(TopicAction::Unpause)),
    (
        Method::POST,
        "/channel/create",
        Endpoint::Channel(ChannelAction::Create),
    ),
    (
        Method::POST,
        "/channel/delete",
        Endpoint::Channel(ChannelAction::Delete),
    ),
    (Method::POST, "/channel/empty", Endpoint::Channel(ChannelAction::Empty)),
    (Method::POST, "/channel/pause", Endpoint::Channel(ChannelAction::Pause)),
    (
        Method::POST,
        "/channel/unpause",
        Endpoint::Channel(ChannelAction::Unpause),
    ),
    (Method::GET, "/config/:opt", Endpoint::Setting(SettingAction::Show)),
    (Method::PUT, "/config/:opt", Endpoint::Setting(SettingAction::Change)),
    (Method::PUT, "/debug/setblockrate", Endpoint::SetBlockRate),
    (Method::POST, "/debug/freememory", Endpoint::FreeMemory),
]);

#[cfg(test)]
mod tests {
    use nsquorum_http::Resolution;

    use super::*;

    #[test]
    fn every_path_of_nsqd_that_is_implemented_is_in_the_table_once() {
        let gets = ["/ping", "/info", "/stats", "/metrics", "/cluster/status"];
        let actions = ["create", "delete", "empty", "pause", "unpause"];
        let posts = ["topic", "channel"]
            .iter()
            .flat_map(|of| actions.map(|action| format!("/{of}/{action}")));
        for path in posts.chain(["/pub".to_owned(), "/mpub".to_owned(), "/channel/mpub".to_owned()]) {
            assert!(
                matches!(ROUTER.resolve(&Method::POST, &path), Resolution::Endpoint(_)),
                "{path}"
            );
            let refused = Resolution::MethodNotAllowed("OPTIONS, POST".to_owned());
            assert_eq!(ROUTER.resolve(&Method::GET, &path), refused, "{path}");
        }
        for path in gets {
            assert!(
                matches!(ROUTER.resolve(&Method::GET, path), Resolution::Endpoint(_)),
                "{path}"
            );
            let refused = Resolution::MethodNotAllowed("GET, OPTIONS".to_owned());
            assert_eq!(ROUTER.resolve(&Method::HEAD, path), refused, "{path}");
        }
        assert_eq!(ROUTER.resolve(&Method::GET, "/put"), Resolution::NotFound);
    }

    #[test]
    fn topic_and_channel_actions_are_not_mixed_up() {
        let of = |path| match ROUTER.resolve(&Method::POST, path) {
            Resolution::Endpoint(endpoint) => endpoint,
            other => panic!("{path}: {other:?}"),
        };
        assert_eq!(of("/topic/unpause"), Endpoint::Topic(TopicAction::Unpause));
        assert_eq!(of("/topic/empty"), Endpoint::Topic(TopicAction::Empty));
        assert_eq!(of("/channel/delete"), Endpoint::Channel(ChannelAction::Delete));
        assert_eq!(of("/channel/pause"), Endpoint::Channel(ChannelAction::Pause));
    }

    #[test]
    fn settings_are_shown_and_changed() {
        for (method, action) in [(Method::GET, SettingAction::Show), (Method::PUT, SettingAction::Change)] {
            let found = Resolution::WithParameter(Endpoint::Setting(action), "log_level".to_owned());
            assert_eq!(ROUTER.resolve(&method, "/config/log_level"), found);
        }
    }
}
