//! Every promise of the fault file system against a real mount.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]
#![allow(clippy::print_stdout, reason = "a test that cannot run says why")]

mod bytes;
mod faults;
mod history;
mod lifetime;
mod names;
mod power;
mod torn;

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use nsquorum_faults::{CrashOptions, FaultFs, KeepOps, Metadata, MountOptions};
use tempfile::TempDir;

/// A mount of a fresh backing directory.
struct Bed {
    fs: Option<FaultFs>,
    directory: TempDir,
}

/// Runs a test on a mount, or says why it cannot.
fn on(options: MountOptions, test: impl FnOnce(&mut Bed)) {
    if let Some(mut bed) = Bed::new(options) {
        test(&mut bed);
    }
}

fn ordered() -> MountOptions {
    MountOptions {
        daemon: Some(env!("CARGO_BIN_EXE_nsquorum-faultfs").into()),
        ..MountOptions::default()
    }
}

fn strict() -> MountOptions {
    MountOptions {
        metadata: Metadata::Strict,
        ..ordered()
    }
}

const LOSE_ALL: CrashOptions = CrashOptions {
    keep: KeepOps::None,
    stay_down: false,
};
const KEEP_ALL: CrashOptions = CrashOptions {
    keep: KeepOps::All,
    stay_down: false,
};

impl Bed {
    fn new(options: MountOptions) -> Option<Self> {
        if !Path::new("/dev/fuse").exists() {
            println!("skipped: this machine has no /dev/fuse");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        for name in ["backing", "mount"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        let mut bed = Self { fs: None, directory };
        bed.mount(options);
        Some(bed)
    }

    fn mount(&mut self, options: MountOptions) {
        assert!(self.fs.is_none());
        let (backing, mount) = (
            self.directory.path().join("backing"),
            self.directory.path().join("mount"),
        );
        self.fs = Some(FaultFs::mount_with(&backing, &mount, &options).unwrap());
    }

    fn fs(&self) -> &FaultFs {
        self.fs.as_ref().unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.fs().path().join(name)
    }

    fn durable(&self, name: &str) -> PathBuf {
        self.fs().backing().join(name)
    }

    /// A file with these bytes, synced under its name.
    fn stored(&self, name: &str, data: &[u8]) -> File {
        use std::os::unix::fs::FileExt;
        let path = self.path(name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        file.write_all_at(data, 0).unwrap();
        file.sync_all().unwrap();
        sync_directory(path.parent().unwrap());
        file
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    fn exists(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    fn names(&self, directory: &str) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.path(directory))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn crash(&self) {
        self.fs().crash().unwrap();
    }
}

fn sync_directory(path: &Path) {
    File::open(path).unwrap().sync_all().unwrap();
}

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}
