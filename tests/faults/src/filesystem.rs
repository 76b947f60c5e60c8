//! The FUSE side: requests of the kernel become calls of the volume.
//!
//! Nothing is cached by the kernel: files are opened with direct IO, entries and attributes live for zero seconds. A
//! page cache would hide a loss, and entries that outlive a crash would name inodes that are gone. Locks (flock, fcntl)
//! are not forwarded, so the kernel keeps them itself and they end with their process.

mod attributes;

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno as FuseErrno, FileAttr, FileHandle, FopenFlags, Generation, INodeNo, KernelConfig, LockOwner,
    OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::io::Errno;

use self::attributes::file_type;
use crate::control::Call;
use crate::namespace::Namespace;
use crate::node::{Ino, Kind, Owner, Place};
use crate::volume::{Subject, Volume};

/// Nothing may be remembered: the next moment may be after a crash.
const NO_CACHE: Duration = Duration::ZERO;
/// Inode numbers are never used twice, so one generation is enough.
const GENERATION: Generation = Generation(0);
const BLOCK_BYTES: u32 = 4096;

/// The volume as `fuser` wants it.
#[derive(Debug)]
pub(crate) struct Filesystem(pub(crate) Arc<Volume>);

fn ino(number: INodeNo) -> Ino {
    Ino(number.0)
}

fn fuse(error: Errno) -> FuseErrno {
    FuseErrno::from_i32(error.raw_os_error())
}

/// Sends the outcome of a call that answers with nothing.
fn settle(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(fuse(error)),
    }
}

fn owner(request: &Request, mode: u32, umask: u32) -> Owner {
    Owner {
        mode: mode & !umask & 0o7777,
        uid: request.uid(),
        gid: request.gid(),
    }
}

impl Filesystem {
    /// Changes the tree, takes the kernel's reference to the inode it names, and returns its attributes.
    fn entry(&self, find: impl FnOnce(&mut Namespace) -> Result<Ino, Errno>) -> Result<FileAttr, Errno> {
        let ino = {
            let mut tree = self.0.tree()?;
            let ino = find(&mut tree)?;
            tree.looked_up(ino)?;
            ino
        };
        self.attributes(ino)
    }

    fn answer(reply: ReplyEntry, result: Result<FileAttr, Errno>) {
        match result {
            Ok(attributes) => reply.entry(&NO_CACHE, &attributes, GENERATION),
            Err(error) => reply.error(fuse(error)),
        }
    }
}

impl fuser::Filesystem for Filesystem {
    fn init(&mut self, _request: &Request, _config: &mut KernelConfig) -> std::io::Result<()> {
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        Self::answer(reply, self.entry(|tree| tree.child(ino(parent), name)));
    }

    fn forget(&self, _request: &Request, number: INodeNo, count: u64) {
        // With the power off the inode is forgotten already.
        if let Ok(mut tree) = self.0.tree() {
            let _nothing_to_answer = tree.forget(ino(number), count);
        }
    }

    fn getattr(&self, _request: &Request, number: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(ino(number)) {
            Ok(attributes) => reply.attr(&NO_CACHE, &attributes),
            Err(error) => reply.error(fuse(error)),
        }
    }

    fn setattr(
        &self,
        _request: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let result = size
            .map_or(Ok(()), |size| self.0.truncate(ino(number), size))
            .and_then(|()| {
                let only_size = (mode, uid, gid) == (None, None, None) && atime.is_none() && mtime.is_none();
                if only_size {
                    Ok(())
                } else {
                    self.set_attributes(ino(number), (mode, uid, gid), (atime, mtime))
                }
            });
        match result.and_then(|()| self.attributes(ino(number))) {
            Ok(attributes) => reply.attr(&NO_CACHE, &attributes),
            Err(error) => reply.error(fuse(error)),
        }
    }

    fn readlink(&self, _request: &Request, number: INodeNo, reply: ReplyData) {
        let target = self.0.tree().and_then(|tree| match &tree.node(ino(number))?.kind {
            Kind::Symlink(target) => Ok(target.clone()),
            _ => Err(Errno::INVAL),
        });
        match target {
            Ok(target) => reply.data(target.as_encoded_bytes()),
            Err(error) => reply.error(fuse(error)),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        if mode & libc::S_IFMT != libc::S_IFREG {
            return reply.error(FuseErrno::EPERM);
        }
        let owner = owner(request, mode, umask);
        let result = self
            .0
            .admit(Call::Create, Subject::Name(ino(parent), name))
            .and_then(|_| {
                self.entry(|tree| tree.create(ino(parent), name, owner, |image, new| image.new_file(new, owner)))
            });
        Self::answer(reply, result);
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let owner = owner(request, mode, umask);
        let result = self
            .0
            .admit(Call::Mkdir, Subject::Name(ino(parent), name))
            .and_then(|_| {
                self.entry(|tree| tree.create(ino(parent), name, owner, |image, new| image.new_directory(new, owner)))
            });
        Self::answer(reply, result);
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let admitted = self.0.admit(Call::Unlink, Subject::Name(ino(parent), name));
        settle(reply, admitted.and_then(|_| self.0.tree()?.unlink(ino(parent), name)));
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let admitted = self.0.admit(Call::Rmdir, Subject::Name(ino(parent), name));
        settle(reply, admitted.and_then(|_| self.0.tree()?.rmdir(ino(parent), name)));
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let owner = owner(request, 0o777, 0);
        let result = self
            .0
            .admit(Call::Symlink, Subject::Name(ino(parent), name))
            .and_then(|_| {
                self.entry(|tree| {
                    tree.create(ino(parent), name, owner, |image, new| {
                        image.new_symlink(new, target.as_os_str())
                    })
                })
            });
        Self::answer(reply, result);
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let flags = match flags {
            flags if flags.is_empty() => rustix::fs::RenameFlags::empty(),
            RenameFlags::RENAME_NOREPLACE => rustix::fs::RenameFlags::NOREPLACE,
            RenameFlags::RENAME_EXCHANGE => rustix::fs::RenameFlags::EXCHANGE,
            _ => return reply.error(FuseErrno::EINVAL),
        };
        let (from, to) = (Place::new(ino(parent), name), Place::new(ino(newparent), newname));
        settle(reply, self.0.rename(from, to, flags));
    }

    fn link(&self, _request: &Request, number: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let (number, dir) = (ino(number), ino(newparent));
        let admitted = self.0.admit(Call::Link, Subject::InodeAndName(number, (dir, newname)));
        let result = admitted.and_then(|_| self.entry(|tree| tree.link(number, dir, newname).map(|()| number)));
        Self::answer(reply, result);
    }

    fn open(&self, _request: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let append = flags.0 & libc::O_APPEND != 0;
        let admitted = self.0.admit(Call::Open, Subject::Inode(ino(number)));
        match admitted.and_then(|_| self.0.tree()?.open(ino(number), append)) {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::FOPEN_DIRECT_IO),
            Err(error) => reply.error(fuse(error)),
        }
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let owner = owner(request, mode, umask);
        let create = || {
            self.0.admit(Call::Create, Subject::Name(ino(parent), name))?;
            let mut handle = 0;
            let attributes = self.entry(|tree| {
                let new = tree.create(ino(parent), name, owner, |image, new| image.new_file(new, owner))?;
                handle = tree.open(new, flags & libc::O_APPEND != 0)?;
                Ok(new)
            })?;
            Ok((attributes, handle))
        };
        match create() {
            Ok((attributes, handle)) => {
                let flags = FopenFlags::FOPEN_DIRECT_IO;
                reply.created(&NO_CACHE, &attributes, GENERATION, FileHandle(handle), flags);
            }
            Err(error) => reply.error(fuse(error)),
        }
    }

    fn read(
        &self,
        _request: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.0.read(ino(number), handle.0, offset, size as usize) {
            Ok(data) => reply.data(&data),
            Err(error) => reply.error(fuse(error)),
        }
    }

    fn write(
        &self,
        _request: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.0.write(ino(number), handle.0, offset, data) {
            Ok(written) => reply.written(written as u32),
            Err(error) => reply.error(fuse(error)),
        }
    }

    /// close makes nothing durable, and the kernel need not ask again.
    fn flush(&self, _request: &Request, _number: INodeNo, _handle: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        reply.error(FuseErrno::ENOSYS);
    }

    fn release(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        settle(reply, self.0.tree().and_then(|mut tree| tree.close(handle.0)));
    }

    fn fsync(&self, _request: &Request, number: INodeNo, handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        settle(reply, self.0.sync_file(ino(number), handle.0));
    }

    fn fallocate(
        &self,
        _request: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        settle(reply, self.0.fallocate(ino(number), handle.0, offset, length, mode));
    }

    fn opendir(&self, _request: &Request, number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let admitted = self.0.admit(Call::Opendir, Subject::Inode(ino(number)));
        match admitted.and_then(|_| self.0.tree()?.open(ino(number), false)) {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(error) => reply.error(fuse(error)),
        }
    }

    fn readdir(&self, _request: &Request, number: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let fill = |reply: &mut ReplyDirectory| {
            let tree = self.0.tree()?;
            let listing = &tree.handle(handle.0)?.listing;
            let parent = tree.node(ino(number))?.place.dir;
            let dots = [(".", ino(number)), ("..", parent)].map(|(name, ino)| (OsStr::new(name), ino));
            let entries = listing.iter().map(|(name, ino)| (name.as_os_str(), *ino));
            for (index, (name, entry)) in dots.into_iter().chain(entries).enumerate().skip(offset as usize) {
                // An entry that was removed since the open is left out.
                let Ok(node) = tree.node(entry) else { continue };
                if reply.add(INodeNo(entry.0), index as u64 + 1, file_type(&node.kind), name) {
                    break;
                }
            }
            Ok(())
        };
        match fill(&mut reply) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(fuse(error)),
        }
    }

    fn releasedir(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        settle(reply, self.0.tree().and_then(|mut tree| tree.close(handle.0)));
    }

    fn fsyncdir(&self, _request: &Request, number: INodeNo, handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let alive = self.0.tree().and_then(|tree| tree.handle(handle.0).map(drop));
        settle(reply, alive.and_then(|()| self.0.sync_directory(ino(number))));
    }

    fn statfs(&self, _request: &Request, _number: INodeNo, reply: ReplyStatfs) {
        let stat = self
            .0
            .admit(Call::Statfs, Subject::Nothing)
            .and_then(|_| self.0.tree()?.image().statvfs());
        let stat = match stat {
            Ok(stat) => stat,
            Err(error) => return reply.error(fuse(error)),
        };
        let block = u64::from(BLOCK_BYTES);
        let (total, free) = match self.0.usage().free_bytes() {
            Some(free) => ((self.0.usage().used_bytes() + free) / block, free / block),
            None => (
                stat.f_blocks * stat.f_frsize / block,
                stat.f_bavail * stat.f_frsize / block,
            ),
        };
        reply.statfs(
            total,
            free,
            free,
            stat.f_files,
            stat.f_ffree,
            BLOCK_BYTES,
            255,
            BLOCK_BYTES,
        );
    }
}
