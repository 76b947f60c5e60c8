//! What nodes say to each other about themselves and about all groups at once.
//!
//! ```text
//! heartbeat  1 | sent u64 | count u32 | led per group         led   group u64 | term u64 | serves u8
//! answer     2 | sent u64
//! leads      3 | led
//! command    4 | call u64 | JSON
//! outcome    5 | call u64 | 0 and index u64, 1 (does not lead), or 2 (failed)
//! ask        6 | call u64
//! report     7 | call u64 | per group that the sender leads: led | last end u64 | count u8 | per replica: node u64 | end u64 | in sync u8
//! ```
//! Little-endian. `sent` means something to its sender only. An end is an index and one more, 0 for none.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use nsquorum_environment::Monotonic;
use nsquorum_links::Frame;
use nsquorum_topic::{GroupId, LogIndex, NodeId, Term};

use crate::reports::{GroupReport, ReplicaReport};

const HEARTBEAT: u8 = 1;
const ANSWER: u8 = 2;
const LEADS: u8 = 3;
const COMMAND: u8 = 4;
const OUTCOME: u8 = 5;
const ASK: u8 = 6;
const REPORT: u8 = 7;
const LED_BYTES: usize = 17;

/// A group that the sender leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Led {
    pub(crate) group: GroupId,
    pub(crate) term: Term,
    /// Whether it serves: everything committed before is applied there.
    pub(crate) serves: bool,
}

/// What became of a metadata command at the node that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommandOutcome {
    /// It is applied, in this entry.
    Applied(LogIndex),
    /// That node does not lead the metadata group; nothing was done.
    NotLeader,
    /// The outcome is unknown.
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NodeFrame {
    Heartbeat {
        sent: Monotonic,
        led: Vec<Led>,
    },
    Answer {
        sent: Monotonic,
    },
    Leads(Led),
    Command {
        call: u64,
        command: Bytes,
    },
    Outcome {
        call: u64,
        outcome: CommandOutcome,
    },
    /// What does the other node lead, and where are the replicas?
    Ask {
        call: u64,
    },
    Report {
        call: u64,
        groups: Vec<GroupReport>,
    },
}

impl NodeFrame {
    pub(crate) fn encode(&self) -> Frame {
        let mut out = BytesMut::new();
        match self {
            Self::Heartbeat { sent, led } => {
                out.reserve(13 + led.len() * LED_BYTES);
                out.put_u8(HEARTBEAT);
                out.put_u64_le(sent.as_nanos());
                out.put_u32_le(u32::try_from(led.len()).expect("a node has far fewer than 2^32 groups"));
                led.iter().for_each(|led| put_led(&mut out, led));
            }
            Self::Answer { sent } => {
                out.put_u8(ANSWER);
                out.put_u64_le(sent.as_nanos());
            }
            Self::Leads(led) => {
                out.put_u8(LEADS);
                put_led(&mut out, led);
            }
            Self::Command { call, command } => {
                out.put_u8(COMMAND);
                out.put_u64_le(*call);
                out.put_slice(command);
            }
            Self::Outcome { call, outcome } => {
                out.put_u8(OUTCOME);
                out.put_u64_le(*call);
                match outcome {
                    CommandOutcome::Applied(index) => {
                        out.put_u8(0);
                        out.put_u64_le(index.get());
                    }
                    CommandOutcome::NotLeader => out.put_u8(1),
                    CommandOutcome::Failed => out.put_u8(2),
                }
            }
            Self::Ask { call } => {
                out.put_u8(ASK);
                out.put_u64_le(*call);
            }
            Self::Report { call, groups } => {
                out.put_u8(REPORT);
                out.put_u64_le(*call);
                groups.iter().for_each(|group| put_group(&mut out, group));
            }
        }
        out.freeze().into()
    }

    /// `None` for bytes that no correct node sends.
    pub(crate) fn decode(mut frame: Bytes) -> Option<Self> {
        let kind = frame.try_get_u8().ok()?;
        let decoded = match kind {
            HEARTBEAT => {
                let sent = Monotonic::from_nanos(frame.try_get_u64_le().ok()?);
                let count = frame.try_get_u32_le().ok()? as usize;
                if frame.len() != count.checked_mul(LED_BYTES)? {
                    return None;
                }
                let led = (0..count).map(|_| take_led(&mut frame)).collect::<Option<_>>()?;
                Self::Heartbeat { sent, led }
            }
            ANSWER => Self::Answer {
                sent: Monotonic::from_nanos(frame.try_get_u64_le().ok()?),
            },
            LEADS => Self::Leads(take_led(&mut frame)?),
            COMMAND => {
                let call = frame.try_get_u64_le().ok()?;
                return Some(Self::Command { call, command: frame });
            }
            OUTCOME => {
                let call = frame.try_get_u64_le().ok()?;
                let outcome = match frame.try_get_u8().ok()? {
                    0 => CommandOutcome::Applied(LogIndex::new(frame.try_get_u64_le().ok()?)),
                    1 => CommandOutcome::NotLeader,
                    2 => CommandOutcome::Failed,
                    _ => return None,
                };
                Self::Outcome { call, outcome }
            }
            ASK => Self::Ask {
                call: frame.try_get_u64_le().ok()?,
            },
            REPORT => {
                let call = frame.try_get_u64_le().ok()?;
                let mut groups = Vec::new();
                while !frame.is_empty() {
                    groups.push(take_group(&mut frame)?);
                }
                Self::Report { call, groups }
            }
            _ => return None,
        };
        frame.is_empty().then_some(decoded)
    }
}

fn put_led(out: &mut BytesMut, led: &Led) {
    out.put_u64_le(led.group.get());
    out.put_u64_le(led.term.get());
    out.put_u8(u8::from(led.serves));
}

fn take_led(frame: &mut Bytes) -> Option<Led> {
    Some(Led {
        group: GroupId::new(frame.try_get_u64_le().ok()?),
        term: Term::new(frame.try_get_u64_le().ok()?),
        serves: take_bool(frame)?,
    })
}

fn take_bool(frame: &mut Bytes) -> Option<bool> {
    match frame.try_get_u8().ok()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn put_end(out: &mut BytesMut, last: Option<LogIndex>) {
    out.put_u64_le(last.map_or(0, |last| last.get() + 1));
}

fn take_end(frame: &mut Bytes) -> Option<Option<LogIndex>> {
    let end = frame.try_get_u64_le().ok()?;
    Some(end.checked_sub(1).map(LogIndex::new))
}

fn put_group(out: &mut BytesMut, group: &GroupReport) {
    put_led(out, &group.led);
    put_end(out, group.last);
    out.put_u8(u8::try_from(group.replicas.len()).expect("a group has few replicas"));
    for replica in &group.replicas {
        out.put_u64_le(replica.node.get());
        put_end(out, replica.matched);
        out.put_u8(u8::from(replica.in_sync));
    }
}

fn take_group(frame: &mut Bytes) -> Option<GroupReport> {
    let led = take_led(frame)?;
    let last = take_end(frame)?;
    let count = frame.try_get_u8().ok()?;
    let replicas = (0..count).map(|_| {
        Some(ReplicaReport {
            node: NodeId::new(frame.try_get_u64_le().ok()?),
            matched: take_end(frame)?,
            in_sync: take_bool(frame)?,
        })
    });
    Some(GroupReport {
        led,
        last,
        replicas: replicas.collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_the_round_trip_and_cuts_are_refused() {
        let led = Led {
            group: GroupId::new(7),
            term: Term::new(3),
            serves: true,
        };
        let sent = Monotonic::from_nanos(12);
        let frames = [
            NodeFrame::Heartbeat {
                sent,
                led: vec![led, led],
            },
            NodeFrame::Heartbeat { sent, led: vec![] },
            NodeFrame::Answer { sent },
            NodeFrame::Leads(led),
            NodeFrame::Ask { call: 5 },
            NodeFrame::Outcome {
                call: 5,
                outcome: CommandOutcome::Applied(LogIndex::new(9)),
            },
            NodeFrame::Outcome {
                call: 5,
                outcome: CommandOutcome::NotLeader,
            },
            NodeFrame::Outcome {
                call: 5,
                outcome: CommandOutcome::Failed,
            },
        ];
        for frame in frames {
            let bytes = frame.encode().slice(0, usize::MAX);
            assert_eq!(NodeFrame::decode(bytes.clone()), Some(frame.clone()));
            for cut in 0..bytes.len() {
                assert_eq!(NodeFrame::decode(bytes.slice(..cut)), None, "{frame:?} cut at {cut}");
            }
        }
        let replica = |node, matched, in_sync| ReplicaReport {
            node: NodeId::new(node),
            matched,
            in_sync,
        };
        let group = GroupReport {
            led,
            last: Some(LogIndex::new(0)),
            replicas: vec![replica(1, Some(LogIndex::new(0)), true), replica(2, None, false)],
        };
        let report = NodeFrame::Report {
            call: 5,
            groups: vec![group.clone(), group],
        };
        let bytes = report.encode().slice(0, usize::MAX);
        assert_eq!(NodeFrame::decode(bytes.clone()), Some(report));
        // A report has no count: it may end after any group.
        let ends: Vec<usize> = (0..bytes.len())
            .filter(|cut| NodeFrame::decode(bytes.slice(..*cut)).is_some())
            .collect();
        assert_eq!(ends, [9, 9 + (bytes.len() - 9) / 2]);
        let command = NodeFrame::Command {
            call: 5,
            command: Bytes::from_static(b"{}"),
        };
        assert_eq!(NodeFrame::decode(command.encode().slice(0, usize::MAX)), Some(command));
    }
}
