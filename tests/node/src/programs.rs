//! Where the programs under test are.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// The node: `$NSQUORUM_BIN`, or what stands beside the running test.
///
/// # Errors
/// If there is none, with the command that builds it.
pub fn nsquorum_program() -> Result<PathBuf> {
    find("nsquorum", "NSQUORUM_BIN", "cargo build -p nsquorum")
}

/// The file system that loses what was not synced: `$NSQUORUM_FAULTFS`, or what stands beside the running test.
///
/// # Errors
/// If there is none, with the command that builds it.
pub fn faultfs_program() -> Result<PathBuf> {
    find("nsquorum-faultfs", "NSQUORUM_FAULTFS", "cargo build -p nsquorum-faults")
}

fn find(name: &str, variable: &str, build: &str) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        let path = PathBuf::from(path);
        if path.is_file() {
            return Ok(path);
        }
        bail!(
            "{variable} is {}, which does not exist; build it with `{build}` (add --release for a release run)",
            path.display()
        );
    }
    // Tests stand in target/PROFILE/deps.
    let test = std::env::current_exe()?;
    let found = test
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    match found {
        Some(path) => Ok(path),
        None => bail!(
            "there is no {name} beside {}; build it with `{build}` (add --release for a release run), or set {variable}",
            test.parent().unwrap_or(Path::new("/")).display()
        ),
    }
}
