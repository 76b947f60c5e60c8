//! `nsquorum verify` and `nsquorum repair`: the directory of a stopped node.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;
use nsquorum_consensus::OfflineMetadata;
use nsquorum_storage::inspect::{self, Outcome, Repair, RepairError, VerifyOptions};

use super::complain;
use crate::exit::Exit;

/// Flags of `verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The data directory; no node may be using it.
    directory: PathBuf,
    /// Print the whole report as one JSON object.
    #[arg(long)]
    json: bool,
    /// List every message that the log still holds.
    #[arg(long)]
    messages: bool,
}

/// Flags of `repair`.
#[derive(Debug, Args)]
pub(crate) struct RepairArgs {
    /// The data directory; no node may be using it.
    directory: PathBuf,
}

/// Reads everything in the directory and writes nothing; `Exit::ImpossibleData` if anything is damaged.
pub(crate) fn verify(args: &VerifyArgs) -> Exit {
    let options = VerifyOptions {
        with_messages: args.messages,
    };
    let mut metadata = OfflineMetadata::default();
    let report = match inspect::verify(&args.directory, options, Some(&mut metadata)) {
        Ok(report) => report,
        Err(error) => {
            complain(&error.to_string());
            return Exit::of_storage(&error);
        }
    };
    let text = if args.json {
        report.to_json()
    } else {
        report.to_string()
    };
    match (print(&text), report.outcome()) {
        (Exit::Ok, Outcome::Damaged) => Exit::ImpossibleData,
        (printed, _) => printed,
    }
}

/// Cuts unsynced bytes behind the durable mark; refuses if acknowledged data would be lost.
pub(crate) fn repair(args: &RepairArgs) -> Exit {
    match inspect::repair(&args.directory) {
        Ok(Repair::Nothing) => print("nothing to repair"),
        Ok(Repair::Cut {
            file,
            offset,
            bytes,
            kept,
        }) => print(&format!(
            "{file}: {bytes} bytes cut at {offset}; they are kept in {}",
            kept.display()
        )),
        Err(error) => {
            complain(&error.to_string());
            match error {
                RepairError::Storage(error) => Exit::of_storage(&error),
                RepairError::Refused(_) => Exit::ImpossibleData,
            }
        }
    }
}

fn print(text: &str) -> Exit {
    match writeln!(std::io::stdout().lock(), "{}", text.trim_end()) {
        Ok(()) => Exit::Ok,
        Err(error) => {
            complain(&format!("cannot write the report: {error}"));
            Exit::Failed
        }
    }
}
