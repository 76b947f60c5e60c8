//! The cases, with what each is to show.

use std::time::Duration;

use clap::ValueEnum;
use nsquorum_protocol::TopicName;

use super::consumed;
use super::deliver::{self, EndToEndLoad};
use super::publish::{self, PublishLoad};
use super::target::Target;
use super::window::{Measured, Window};

/// One kind of load.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Case {
    /// One synchronous publisher.
    OneSync,
    /// 64 synchronous publishers on 64 connections.
    ManySync,
    /// 512 publishes in flight on 4 connections.
    InFlight,
    /// MPUB of 200 messages on 8 connections, each synchronous.
    Mpub,
    /// The same while consumers finish everything.
    MpubConsumed,
    /// End-to-end latency of publish and consume at a fixed rate.
    EndToEnd,
    /// Consuming a backlog.
    Drain,
}

/// The sizes and times of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) message_bytes: usize,
    pub(super) end_to_end_bytes: usize,
    pub(super) end_to_end_rate: f64,
    pub(super) drain_messages: u64,
    pub(super) warm_up: Duration,
    pub(super) length: Duration,
    /// So long without a delivery while messages are missing is a failure.
    pub(super) stall_max: Duration,
}

impl Case {
    pub(super) const ALL: [Self; 7] = [
        Self::OneSync,
        Self::ManySync,
        Self::InFlight,
        Self::Mpub,
        Self::MpubConsumed,
        Self::EndToEnd,
        Self::Drain,
    ];

    /// The name on the command line, in topics and in reports.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::OneSync => "one-sync",
            Self::ManySync => "many-sync",
            Self::InFlight => "in-flight",
            Self::Mpub => "mpub",
            Self::MpubConsumed => "mpub-consumed",
            Self::EndToEnd => "end-to-end",
            Self::Drain => "drain",
        }
    }

    /// What its latencies are.
    pub(super) fn latency_of(self) -> &'static str {
        match self {
            Self::OneSync | Self::ManySync | Self::InFlight => "PUB to OK",
            Self::Mpub | Self::MpubConsumed => "MPUB to OK, per command",
            Self::EndToEnd => "time due to delivery",
            Self::Drain => "gap between arrivals on one connection",
        }
    }

    fn publish_load(self, settings: &Settings) -> Option<PublishLoad> {
        let (connections, in_flight, batch) = match self {
            Self::OneSync => (1, 1, 1),
            Self::ManySync => (64, 1, 1),
            Self::InFlight => (4, 128, 1),
            Self::Mpub | Self::MpubConsumed => (8, 1, 200),
            Self::EndToEnd | Self::Drain => return None,
        };
        Some(PublishLoad {
            connections,
            in_flight,
            batch,
            message_bytes: settings.message_bytes,
        })
    }

    /// The bytes of one message.
    pub(super) fn message_bytes(self, settings: &Settings) -> usize {
        match self {
            Self::EndToEnd => settings.end_to_end_bytes,
            _ => settings.message_bytes,
        }
    }

    /// The bytes of one command's messages together.
    pub(super) fn command_bytes(self, settings: &Settings) -> usize {
        self.message_bytes(settings) * self.publish_load(settings).map_or(1, |load| load.batch)
    }

    /// Runs the case once on a topic of its own.
    pub(super) async fn run(self, target: &Target, topic: &TopicName, settings: &Settings) -> anyhow::Result<Measured> {
        match self {
            Self::EndToEnd => {
                let load = EndToEndLoad {
                    rate: settings.end_to_end_rate,
                    message_bytes: settings.end_to_end_bytes,
                    warm_up: settings.warm_up,
                    length: settings.length,
                    stall_max: settings.stall_max,
                };
                deliver::end_to_end(target, topic, load).await
            }
            Self::Drain => {
                let (messages, bytes) = (settings.drain_messages, settings.message_bytes);
                deliver::drain(target, topic, messages, bytes, settings.stall_max).await
            }
            Self::OneSync | Self::ManySync | Self::InFlight | Self::Mpub | Self::MpubConsumed => {
                let load = self.publish_load(settings).expect("these cases publish");
                let window = || Window::after(settings.warm_up, settings.length);
                if self == Self::MpubConsumed {
                    return consumed::run(target, topic, load, window, settings.stall_max).await;
                }
                publish::run(target, topic, load, window).await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_of_the_command_line() {
        for case in Case::ALL {
            let value = case.to_possible_value().unwrap();
            assert_eq!(value.get_name(), case.name());
        }
        assert_eq!(Case::value_variants(), Case::ALL);
    }
}
