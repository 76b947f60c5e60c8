//! The whole check of a directory, from files to messages.

use std::collections::BTreeMap;
use std::path::Path;

use nsquorum_topic::{GroupId, Seq, TopicState};

use super::database::Database;
use super::directory::Directory;
use super::files;
use super::metadata::{MetadataMachine, MetadataReplay, NamedTopic, NoMachine};
use super::replay::{self, Findings, Machine, Replayed, StoredGroup};
use super::report::{FileCounts, GroupReport, Place, Report};
use super::topic::TopicMachine;
use crate::directory::{DATABASE_FOLDER, located};
use crate::error::StorageError;

/// What `verify` is to do beyond its checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifyOptions {
    /// List every accepted message that the log still holds.
    pub with_messages: bool,
}

/// Checks the directory of a stopped node. Writes nothing, and needs as much memory as the write-ahead logs are long.
///
/// `metadata` is the metadata group's state machine, new; without it topics have no names, and that group's checkpoints are not
/// compared with its log.
///
/// # Errors
/// If the directory is in use (trying again later may help), is not one of nsquorum's, or cannot be read. Damage is no error: it is
/// in the report.
pub fn verify(
    dir: &Path,
    options: VerifyOptions,
    metadata: Option<&mut dyn MetadataReplay>,
) -> Result<Report, StorageError> {
    let directory = Directory::for_reading(dir)?;
    let mut report = Report {
        directory: dir.display().to_string(),
        ..Report::default()
    };
    match directory.identity() {
        Ok(identity) => report.identity = Some(identity),
        Err(finding) => report.findings.push(finding),
    }
    let mark = directory.mark().unwrap_or_else(|finding| {
        report.findings.push(finding);
        None
    });
    let folder = directory.database();
    if !folder.is_dir() {
        report.find(
            Place::File {
                file: DATABASE_FOLDER.to_owned(),
                offset: 0,
            },
            "missing: there is no database",
        );
        return Ok(report);
    }
    let check =
        files::check(&folder, DATABASE_FOLDER, mark).map_err(|error| located("read", directory.path(), &error))?;
    report.files = FileCounts {
        logs: check.logs.len() as u64,
        log_records: check.logs.iter().map(|log| log.scan.records).sum(),
        tables: check.tables,
        blobs: check.blobs,
        bytes: check.bytes,
    };
    report.findings.extend(check.findings);
    report.notes.extend(check.notes);
    if check.manifest_is_damaged {
        report.note(
            Place::Database,
            "not opened, because its manifest is damaged: groups were not checked",
        );
    } else if let Some(version) = &check.version {
        match Database::open(&folder, version) {
            Ok(database) => check_groups(&database, options, metadata, &mut report),
            Err(what) => report.find(Place::Database, format!("cannot be opened: {what}")),
        }
    }
    Ok(report)
}

fn check_groups(
    database: &Database,
    options: VerifyOptions,
    mut metadata: Option<&mut dyn MetadataReplay>,
    report: &mut Report,
) {
    let mut topics: Option<BTreeMap<GroupId, NamedTopic>> = None;
    // The metadata group has the lowest number, so names and bases are known before topics are replayed.
    for group in database.groups(&mut report.findings) {
        let mut findings = Findings::new(group);
        let stored = database.group(group, &mut findings);
        if group == GroupId::METADATA {
            let replayed = match metadata.as_deref_mut() {
                Some(metadata) => {
                    let mut machine = MetadataMachine(metadata);
                    let replayed = run(database, &stored, &mut machine, &mut findings);
                    if replayed.has_state {
                        topics = Some(
                            metadata
                                .topics()
                                .into_iter()
                                .map(|topic| (topic.group, topic))
                                .collect(),
                        );
                    }
                    replayed
                }
                None => run(database, &stored, &mut NoMachine, &mut findings),
            };
            report.groups.push(group_report(&stored, &replayed));
        } else {
            let named = topics.as_ref().and_then(|topics| topics.get(&group));
            let base = named
                .map(|topic| topic.seq_base)
                .or_else(|| base_of(&stored))
                .unwrap_or_default();
            let mut machine = TopicMachine::new(base, options.with_messages);
            let replayed = run(database, &stored, &mut machine, &mut findings);
            let mut described = group_report(&stored, &replayed);
            described.name = named.map(|topic| topic.name.clone());
            if replayed.has_state {
                described.topic = Some(machine.into_report(replayed.committed_digest, &mut findings));
            }
            report.groups.push(described);
            if topics.is_some() && named.is_none() {
                let what = "no topic of the metadata has this group: it was deleted, or its creation was cut off";
                report.note(Place::Group(group), what);
            }
        }
        report.findings.extend(findings.into_list());
    }
}

fn run(database: &Database, stored: &StoredGroup, machine: &mut dyn Machine, findings: &mut Findings) -> Replayed {
    replay::run(stored, machine, findings, |visit| database.entries(stored, visit))
}

/// The number below a topic's first message, as a checkpoint has it.
fn base_of(stored: &StoredGroup) -> Option<Seq> {
    let states = stored
        .checkpoints
        .iter()
        .map(|(_, checkpoint)| TopicState::decode(&checkpoint.state));
    states.flatten().next().map(|state| state.seq_base())
}

fn group_report(stored: &StoredGroup, replayed: &Replayed) -> GroupReport {
    let is_topic = stored.group != GroupId::METADATA;
    GroupReport {
        group: stored.group,
        name: None,
        vote: stored.vote,
        purged: stored.purged,
        last: replayed.last,
        committed: stored.committed,
        entries: replayed.entries,
        entry_bytes: replayed.entry_bytes,
        checkpoints: stored
            .checkpoints
            .iter()
            .map(|(slot, checkpoint)| {
                let digest = is_topic.then(|| TopicState::decode(&checkpoint.state).ok()).flatten();
                (*slot, checkpoint.log_id, digest.map(|state| state.digest()))
            })
            .collect(),
        topic: None,
    }
}
