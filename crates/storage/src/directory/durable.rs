//! Files and folders that survive a power cut: contents and names are synced, in this order.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use super::located;
use crate::error::StorageError;

/// The name under which a file is written before it gets its own.
pub(crate) fn temporary_name(name: &str) -> String {
    format!("{name}.tmp")
}

/// Makes a folder (and its parents) if it is missing, and syncs its name.
pub(crate) fn create_folder(path: &Path) -> Result<(), StorageError> {
    match fs::create_dir(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound && path.parent().is_some_and(|parent| !parent.exists()) => {
            create_folder(path.parent().expect("the guard has seen one"))?;
            create_folder(path)
        }
        Err(error) => Err(located("create", path, &error)),
    }
}

/// Replaces a file: after `Ok` it has the new content, after any crash the old or the new.
pub(crate) fn replace_file(folder: &Path, name: &str, content: &[u8]) -> Result<(), StorageError> {
    let (temporary, path) = (folder.join(temporary_name(name)), folder.join(name));
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)
    };
    write().map_err(|error| located("write", &path, &error))?;
    sync_folder(folder)
}

fn sync_folder(path: &Path) -> Result<(), StorageError> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| located("sync", path, &error))
}

fn sync_parent(path: &Path) -> Result<(), StorageError> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => sync_folder(Path::new(".")),
        Some(parent) => sync_folder(parent),
        None => Ok(()),
    }
}
