//! The data directory: whose it is, who holds it, and what lies in it.
//!
//! | name | content |
//! |---|---|
//! | `nsquorum.json` | identity: product, format, cluster, node, incarnation, checksum |
//! | `LOCK` | locked while a process holds the directory; names the process |
//! | `db/` | the database |
//! | `graveyard/` | second names of the database's files, so that none is ever freed at full size |
//! | `ballast` | space to give up when a start finds none |
//! | `synced` | up to where the write-ahead log is known to be on stable storage |
//!
//! A directory that holds anything else is refused before anything in it is touched: the default is the current directory, and
//! nobody's home directory should become a database by accident. Under nsqd's name other files may lie beside these ([`Neighbours`]).

mod ballast;
mod durable;
mod identity;
mod lock;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

pub use identity::{Founding, Identity, Member, new_cluster};
pub use lock::DirectoryLock;
pub use nsquorum_topic::ClusterId;

pub(crate) use ballast::{free_ballast, make_ballast};

use crate::error::StorageError;
use crate::options::StoreOptions;

/// File name of the identity record.
pub const IDENTITY_FILE: &str = "nsquorum.json";
/// File name of the lock.
pub const LOCK_FILE: &str = "LOCK";
/// Folder of the database.
pub const DATABASE_FOLDER: &str = "db";
/// Folder of the second names of the database's files.
pub const GRAVEYARD_FOLDER: &str = "graveyard";
/// File name of the ballast.
pub const BALLAST_FILE: &str = "ballast";
/// File name of the mark of what is synced.
pub const SYNCED_FILE: &str = "synced";

/// A directory that this process holds.
#[derive(Debug)]
pub(crate) struct DataDirectory {
    path: PathBuf,
    identity: Identity,
    _lock: DirectoryLock,
}

impl DataDirectory {
    /// Takes the directory and raises its incarnation; makes it if it is missing or empty.
    pub(crate) fn open(options: &StoreOptions) -> Result<Self, StorageError> {
        let path = options.directory.clone();
        durable::create_folder(&path)?;
        let new = refuse_foreign(&path, options.neighbours)? == Found::Nothing;
        let lock = DirectoryLock::acquire(&path)?;
        // Between the look and the lock another process may have made it.
        let new = new && refuse_foreign(&path, options.neighbours)? == Found::Nothing;
        if !new && crate::janitor::free_bytes(&path)? < options.refuse_all_below_bytes {
            free_ballast(&path)?;
        }
        let identity = if new {
            Identity::new(options.founding, options.environment.random.as_ref())
        } else {
            Identity::read(&path)?.raised()
        };
        identity.write(&path)?;
        durable::create_folder(&path.join(DATABASE_FOLDER))?;
        durable::create_folder(&path.join(GRAVEYARD_FOLDER))?;
        Ok(Self {
            path,
            identity,
            _lock: lock,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.path.join(DATABASE_FOLDER)
    }
}

/// A directory that is held before its store is opened: while its node looks for its cluster.
#[derive(Debug)]
pub struct NodeDirectory(DataDirectory);

impl NodeDirectory {
    /// Takes the directory and raises its incarnation; makes it if it is missing or empty.
    ///
    /// # Errors
    /// As [`crate::RocksStore::open`].
    pub fn open(options: &StoreOptions) -> Result<Self, StorageError> {
        DataDirectory::open(options).map(Self)
    }

    /// Who the directory is.
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// Notes, durably, which cluster it belongs to from now on.
    ///
    /// # Errors
    /// If that cannot be written.
    ///
    /// # Panics
    /// If it belongs to a cluster already.
    pub fn found(&mut self, cluster: ClusterId, members: Vec<Member>) -> Result<(), StorageError> {
        let identity = &mut self.0.identity;
        assert!(identity.cluster.is_none(), "a node never changes its cluster");
        identity.cluster = Some(cluster);
        identity.members = members;
        identity.write(&self.0.path)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    Ours,
}

/// What may be in a new data directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Neighbours {
    /// Nothing.
    #[default]
    Refused,
    /// Anything that is neither the data of a stock nsqd nor has a name that the data directory uses: nsqd starts beside other files.
    Allowed,
}

impl Neighbours {
    fn refuse(self, name: &std::ffi::OsStr) -> bool {
        let ours = [DATABASE_FOLDER, GRAVEYARD_FOLDER, BALLAST_FILE, SYNCED_FILE];
        match self {
            Self::Refused => true,
            Self::Allowed => is_of_stock_nsqd(&name.to_string_lossy()) || ours.iter().any(|ours| name == *ours),
        }
    }
}

fn is_of_stock_nsqd(name: &str) -> bool {
    name == "nsqd.dat" || name.contains(".diskqueue.")
}

/// Says whether the directory is ours or empty (or holds only such neighbours); anything else is refused. Touches nothing.
pub(crate) fn refuse_foreign(path: &Path, neighbours: Neighbours) -> Result<Found, StorageError> {
    let mut strangers: Vec<OsString> = Vec::new();
    let listing = std::fs::read_dir(path).map_err(|error| located("list", path, &error))?;
    for item in listing {
        let name = item.map_err(|error| located("list", path, &error))?.file_name();
        if name == IDENTITY_FILE {
            return Ok(Found::Ours);
        }
        // What a start leaves behind that died before it had written the identity, and what mkfs makes.
        let known = name == LOCK_FILE || name == "lost+found" || *name == *durable::temporary_name(IDENTITY_FILE);
        if !known && neighbours.refuse(&name) {
            strangers.push(name);
        }
    }
    if strangers.is_empty() {
        return Ok(Found::Nothing);
    }
    strangers.sort();
    let names: Vec<String> = strangers
        .iter()
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    let nsqd = names.iter().any(|name| is_of_stock_nsqd(name));
    let shown = names.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ");
    let what = if nsqd {
        format!("it holds the data of a stock nsqd ({shown}), which uses another format; choose an empty directory")
    } else {
        format!("it holds {shown} and no {IDENTITY_FILE}; choose an empty directory")
    };
    Err(StorageError::Foreign {
        path: path.into(),
        what: what.into(),
    })
}

pub(crate) fn located(doing: &str, path: &Path, error: &io::Error) -> StorageError {
    StorageError::io(format!("{doing} {}", path.display()), error)
}

#[cfg(test)]
mod tests;
